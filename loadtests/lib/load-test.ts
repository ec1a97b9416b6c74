import exec from "k6/execution";
import type { Options } from "k6/options";
import { call, record } from "./call.ts";
import { type Deployment, deploy, Problem, remove } from "./deployment.ts";
import { droppedMetric, executorsOf, thresholdsOf } from "./executors.ts";
import { picker } from "./picker.ts";
import { dueMs, type Scenario, stepAt } from "./plan.ts";
import { givenBy } from "./settings.ts";

/** What set-up hands to the callers. */
interface Made {
  deployments: Deployment[];
  /** When set-up was done, ms since 1970. */
  beganAt: number;
}

export interface LoadTest {
  options: Options;
  setup(): Made;
  call(made: Made): void;
  teardown(made: Made): void;
  handleSummary(data: Counted): void;
}

/** What is looked at of k6's summary. */
interface Counted {
  metrics: Record<string, { values: Record<string, number> } | undefined>;
}

/** What k6 runs of a scenario: deploys what it needs, sends what its plan says, and removes what it made. */
export function loadTest(scenario: Scenario): LoadTest {
  const { settings, services, run, isRead } = givenBy(__ENV, scenario);
  const plan = scenario.plan(settings);
  const streams = Object.fromEntries(
    plan.streams.map((stream) => [
      stream.name,
      {
        pick: picker(stream, services.length),
        steps: stream.arrival.kind === "rate" ? stream.arrival.steps : undefined,
      },
    ]),
  );
  /** For `./cloister load`, which reads the log: one line of JSON that says what it is. */
  const tell = (what: string, value: unknown): void => {
    if (isRead) console.log(JSON.stringify([what, value]));
  };
  return {
    options: {
      scenarios: executorsOf(plan, services.length),
      thresholds: thresholdsOf(plan),
      setupTimeout: "15m",
      teardownTimeout: "5m",
      summaryTrendStats: ["avg", "min", "med", "max", "p(90)", "p(95)", "p(99)"],
      systemTags: ["scenario", "name", "status", "error_code", "expected_response", "group"],
      userAgent: "cloister-load",
    },
    setup() {
      const deployments: Deployment[] = [];
      try {
        for (const service of services)
          deployments.push(deploy(plan, service, `${run}-${service.label}-`));
      } catch (error) {
        for (const [index, one] of deployments.entries()) remove(one, services[index]?.adminKey);
        const remedy = error instanceof Problem ? error.remedy : "";
        const message = error instanceof Error ? error.message : String(error);
        tell("problem", { message, remedy });
        exec.test.abort(`${message} ${remedy}`);
      }
      const targets = deployments.map(({ label, url, prefix, tenants }) => ({
        ...{ label, url, prefix, tenants: tenants.map(({ id }) => id) },
      }));
      const beganAt = Date.now();
      tell("sending", { beganAt, targets });
      return { deployments, beganAt };
    },
    call({ deployments, beganAt }) {
      const { name, iterationInTest, startTime } = exec.scenario;
      const stream = streams[name];
      if (!stream)
        return exec.test.abort(
          "k6's own --vus, --iterations and --duration replace the scenario. Set CLOISTER_LOAD_VUS, CLOISTER_LOAD_RATE or CLOISTER_LOAD_DURATION instead.",
        );
      const now = Date.now();
      const sinceMs = now - startTime;
      const { pick, steps } = stream;
      const { request, target } = pick(iterationInTest);
      const part = steps ? stepAt(steps, sinceMs).name : name;
      const called = call(part, request, deployments[target] as Deployment);
      const lateMs = steps ? sinceMs - dueMs(steps, iterationInTest) : null;
      if (isRead) tell("call", { ...called, atMs: now - beganAt, lateMs });
      else record(called);
    },
    teardown({ deployments }) {
      tell("sent", {});
      for (const [index, one] of deployments.entries()) remove(one, services[index]?.adminKey);
    },
    /** Gives nothing, so that k6 prints its own. */
    handleSummary({ metrics }) {
      const count = (name: string): number => metrics[name]?.values.count ?? 0;
      const dropped = plan.streams.map(({ name }) => [name, count(droppedMetric(name))]);
      tell("summary", {
        iterations: count("iterations"),
        bytes: { sent: count("data_sent"), received: count("data_received") },
        dropped: Object.fromEntries(dropped),
      });
    },
  };
}
