import { z } from "zod";
import { type SnapshotState, snapshotStateSchema } from "#contracts/snapshot";
import { type Api, segment } from "../http/api.ts";
import { withProgress } from "../terminal/progress.ts";

const functionSchema = z.looseObject({
  version: z.number(),
  snapshot: snapshotStateSchema.optional(),
});

/** Nothing tells when it is ready, ms. */
const PAUSE_MS = 100;
/** A deploy does not wait longer: calls are served without one, ms. */
const LONGEST_MS = 90_000;

/** Waits until the version has its snapshot, or it is known that it gets none. Undefined when the service does not tell. */
export function awaitSnapshot(
  api: Api,
  { name, version }: { name: string; version: number },
): Promise<SnapshotState | undefined> {
  const latest = performance.now() + LONGEST_MS;
  return withProgress("Making the snapshot", async () => {
    for (;;) {
      const found = await api.json("GET", `/v1/functions/${segment(name)}`, functionSchema);
      // Somebody else has published another one: that one's deploy tells of it.
      if (found.version !== version) return undefined;
      const { snapshot } = found;
      if (snapshot?.state !== "making" || performance.now() > latest) return snapshot;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  });
}

/** One line for people. */
export function snapshotLine({ state, reason, bytes, ms }: SnapshotState): string {
  if (state === "ready")
    return `snapshot ready after ${((ms ?? 0) / 1000).toFixed(1)} s, ${((bytes ?? 0) / 1024 / 1024).toFixed(1)} MiB`;
  const why = reason === undefined ? "" : `: ${reason}`;
  if (state === "failed") return `no snapshot, calls start without one${why}`;
  if (state === "making")
    return "the snapshot is not ready yet; calls start without one until it is";
  return `no snapshot${why}`;
}
