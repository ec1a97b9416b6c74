import {
  type CompareProgress,
  type CompareRequest,
  type Comparison,
  compareProgressSchema,
  comparisonSchema,
} from "#contracts/comparison";
import { EXIT, Failure } from "../failure.ts";
import { type Api, failureOf, problemFailure } from "../http/api.ts";
import { eventsOf } from "../http/events.ts";

/** Has the service compare. Rejects with a Failure; when `signal` ends it, the service stops at the run that is under way. */
export async function askForComparison(
  api: Api,
  request: Partial<CompareRequest> & { function: string },
  signal: AbortSignal,
  onProgress: (progress: CompareProgress) => void,
): Promise<Comparison> {
  try {
    const response = await api.send("POST", "/v1/compare", {
      headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify(request),
      signal,
    });
    if (!response.ok) throw await failureOf(response);
    for await (const { name, data } of eventsOf(response)) {
      if (name === "progress") {
        const progress = compareProgressSchema.safeParse(data);
        if (progress.success) onProgress(progress.data);
      } else if (name === "problem") throw problemFailure(data);
      else if (name === "result") {
        const result = comparisonSchema.safeParse(data);
        if (result.success) return result.data;
        throw new Failure(
          `${api.url} answered with something this command does not understand.`,
          "Use the command line of the same version as the service.",
        );
      }
    }
  } catch (error) {
    if (signal.aborted)
      throw new Failure("The comparison was interrupted.", "Run it again.", EXIT.interrupted);
    throw error instanceof Failure ? error : brokenOff();
  }
  throw brokenOff();
}

const brokenOff = (): Failure =>
  new Failure(
    "The service broke off before the comparison was whole.",
    "See ./cloister logs and the service's own logs, then run it again.",
  );
