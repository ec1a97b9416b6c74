import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { openDatabase } from "#db/database";
import { startTimeOf, waitGone } from "#embedded/process-life";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { plannedRequests } from "#loadtests/lib/plan";
import { SCENARIOS } from "#loadtests/plans/index";
import { commandLine, type Instance, startInstance, testEnvironment } from "#testkit/instance";
import { type PostgresServer, startPostgresServer } from "#testkit/postgres-server";
import { cli } from "../e2e/run-cli.ts";
import { requireK6 } from "./k6-program.ts";
import type { LoadReport } from "./report.ts";

/** Small enough for a machine that does other things: what is checked is whether the counts are right. */
const SMALL: Record<string, string[]> = {
  "cold-start-storm": ["--vus", "4"],
  "warm-steady": ["--rate", "30"],
  burst: ["--rate", "60"],
  ramp: ["--duration", "2s", "--rate", "80"],
  soak: ["--rate", "20"],
  "noisy-neighbour": ["--duration", "2s", "--vus", "2"],
  // Twice what is allowed, for longer than the burst lasts.
  "quota-edge": ["--duration", "2s", "--rate", "40"],
  "isolation-ab": ["--rate", "20"],
  mixed: ["--rate", "20"],
  "large-bodies": ["--vus", "2"],
  streaming: ["--vus", "3"],
};
const SECONDS = ["--duration", "1s"];

const readReport = (out: string, scenario: string): { report: LoadReport; html: string } => {
  const names = readdirSync(out).filter((name) => name.startsWith(`${scenario}-2`));
  const json = names
    .filter((name) => name.endsWith(".json"))
    .sort()
    .at(-1);
  assert.ok(json, `a report of ${scenario} in ${names}`);
  const text = readFileSync(join(out, json), "utf8");
  return {
    report: JSON.parse(text) as LoadReport,
    html: readFileSync(join(out, json.replace(/json$/, "html")), "utf8"),
  };
};

/** Starts the command and resolves with it when it has said that it sends. */
async function sending(words: string[], env: Record<string, string>) {
  const [program, args] = commandLine("load", ...words);
  const child = spawn(program, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: testEnvironment(env),
  });
  let said = "";
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  const begun = new Promise<void>((resolve) => {
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (/^Sending /m.test(said)) resolve();
    });
  });
  child.stdout.resume();
  await Promise.race([
    begun,
    ended.then((code) => assert.fail(`load ended with ${code} before it sent: ${said}`)),
  ]);
  return { child, ended, said: () => said };
}

/** Pids of the processes that one has started. */
const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    .split(" ")
    .filter((text) => text !== "")
    .map(Number);

describe("load tests against a real service", { timeout: 300_000 }, () => {
  let postgres: PostgresServer;
  let instance: Instance;
  let out: string;
  const reports = new Map<string, LoadReport>();

  before(async () => {
    out = mkdtempSync(join(tmpdir(), "cloister-load-test-"));
    // Of the test's own, so that the records can be read when the service has written the last of them.
    postgres = await startPostgresServer();
    // The services' account has to get through to the socket; the server itself asks who comes.
    chmodSync(new URL(postgres.url).searchParams.get("host") ?? "", 0o755);
    instance = await startInstance({ env: { CLOISTER_DATABASE_URL: postgres.url } });
  });
  after(async () => {
    await instance?.stop().catch(() => {});
    await postgres?.stop();
    rmSync(out, { recursive: true, force: true });
  });

  for (const { name } of SCENARIOS) {
    test(`${name}: no failure, and a report that adds up`, async () => {
      const words = [...SECONDS, ...(SMALL[name] ?? []), "--failures-only", "--out", out];
      const { code, stdout, stderr } = await cli(["load", name, ...words, "--json"], {
        data: instance.dataDirectory,
      });
      assert.equal(code, 0, `${stderr}\n${stdout}`);
      const summary = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
      const { report, html } = readReport(out, name);
      reports.set(name, report);
      assert.equal(report.early, null);
      assert.equal(report.generator.name, "k6");
      assert.deepEqual(report.failures, []);
      assert.ok(report.totals.sent > 0);
      const sums = report.groups.reduce((sum, one) => sum + one.ok + one.refused + one.failed, 0);
      assert.equal(sums, report.totals.sent);
      assert.equal(summary.metrics.http_reqs.count, report.totals.sent);
      assert.equal(summary.metrics.dropped_iterations.count, report.totals.dropped);
      assert.equal(summary.ok, true);
      for (const { path, start, ok } of report.groups) assert.ok((path && start) || ok === 0);
      assert.match(html, /<svg/);
      const listed = await cli(["ls", "--json"], { data: instance.dataDirectory });
      assert.deepEqual(JSON.parse(listed.stdout).functions, [], "functions are removed");
    });
  }

  test("the isolations take turns and are compared within the run", () => {
    const { groups, versus } = reports.get("isolation-ab") ?? assert.fail("it ran before");
    const of = (path: string): number =>
      groups.reduce((sum, one) => sum + (one.path === path ? one.ok : 0), 0);
    assert.ok(Math.abs(of("container") - of("microvm")) <= 1);
    assert.ok(versus.every(({ a, b }) => a === "container" && b === "microvm"));
  });

  test("every step of the ramp is in its report", () => {
    const { knee, totals } = reports.get("ramp") ?? assert.fail("it ran before");
    const ramp = SCENARIOS.find(({ name }) => name === "ramp") ?? assert.fail("it is one");
    const { streams } = ramp.plan({ durationMs: 2000, rate: 80 });
    const [stream] = streams;
    assert.ok(stream?.arrival.kind === "rate");
    assert.equal(knee?.steps.length, stream.arrival.steps.length);
    // Whether the one that is due at the very end is sent, k6 leaves open; rates are rounded to thousandths.
    const due = plannedRequests(stream) ?? 0;
    assert.ok(Math.abs(totals.sent + totals.dropped - due) <= 2, `${totals.sent} of ${due}`);
  });

  test("a baseline is compared with, group by group", async () => {
    const words = ["load", "warm-steady", ...SECONDS, "--rate", "30", "--failures-only"];
    const again = await cli([...words, "--out", out, "--baseline", "last", "--json"], {
      data: instance.dataDirectory,
    });
    assert.equal(again.code, 0, again.stderr);
    const { report } = readReport(out, "warm-steady");
    const before = reports.get("warm-steady");
    assert.equal(report.baseline?.beganAt, before?.beganAt);
    assert.ok(report.baseline?.ratios.some(({ p50 }) => p50 && p50.low <= p50.value));
    reports.set("warm-steady again", report);
  });

  test("tenants of a run are gone after it, and without an admin key none are made", async () => {
    const { url, key, adminKey } = instance;
    const listed = await fetch(`${url}/admin/v1/tenants`, {
      headers: { authorization: `Bearer ${adminKey}` },
    });
    assert.equal(listed.status, 200);
    assert.doesNotMatch(await listed.text(), /load-/);
    const env = { CLOISTER_URL: url, CLOISTER_KEY: key, CLOISTER_DATA: join(out, "none") };
    const { code, stderr } = await cli(["load", "quota-edge", "--out", out], { env });
    assert.equal(code, 1, stderr);
    assert.match(stderr, /admin key is not known.*CLOISTER_ADMIN_KEY/s);
  });

  test("the quota lets through what it allows, and refuses the rest", () => {
    const { totals, thresholds } = reports.get("quota-edge") ?? assert.fail("it ran before");
    assert.ok(totals.refused > 0 && totals.ok > 0);
    assert.ok(thresholds.every(({ crossed }) => !crossed));
  });

  test("a service that dies midway: the report is written and says so", async () => {
    const dying = await startInstance();
    try {
      const words = ["warm-steady", "--duration", "60s", "--rate", "20", "--out", out];
      const run = await sending(words, { CLOISTER_DATA: dying.dataDirectory });
      dying.supervisor.kill("SIGKILL");
      assert.equal(await run.ended, 1, run.said());
      assert.match(run.said(), /could not be reached any more/);
      const { report, html } = readReport(out, "warm-steady");
      assert.equal(report.early?.why, "service-lost");
      assert.ok(report.totals.failed > 0 && report.elapsed_ms < 60_000);
      assert.match(html, /could not be reached any more/);
    } finally {
      await dying.stop().catch(() => {});
    }
  });

  test("without a service one is started; Ctrl-C stops it and still writes the report", async () => {
    const temporary = mkdtempSync(join(tmpdir(), "cloister-load-own-"));
    try {
      const words = ["soak", "--duration", "60s", "--rate", "5", "--out", join(out, "own")];
      const run = await sending(words, {
        CLOISTER_DATA: join(temporary, "none"),
        TMPDIR: temporary,
      });
      const port = /127\.0\.0\.1:(\d+) for this run/.exec(run.said())?.[1];
      assert.ok(port, run.said());
      assert.ok((await fetch(`http://127.0.0.1:${port}/healthz`)).ok);
      run.child.kill("SIGINT");
      assert.equal(await run.ended, 130, run.said());
      assert.equal(readReport(join(out, "own"), "soak").report.early?.why, "interrupted");
      await assert.rejects(fetch(`http://127.0.0.1:${port}/healthz`));
      const left = readdirSync(temporary).filter((name) => name.startsWith("cloister-load-"));
      assert.deepEqual(left, [], "its data folder is gone");
    } finally {
      rmSync(temporary, { recursive: true, force: true });
    }
  });

  test("k6 ends with the command, however that ends", async () => {
    const words = ["soak", "--duration", "60s", "--rate", "5", "--out", out];
    const run = await sending(words, { CLOISTER_DATA: instance.dataDirectory });
    const [pid, ...none] = childrenOf(run.child.pid ?? 0);
    assert.ok(pid !== undefined && none.length === 0);
    const began = startTimeOf(pid);
    assert.ok(began);
    run.child.kill("SIGKILL");
    await run.ended;
    assert.ok(await waitGone(pid, began, 20_000));
    const environment = { CLOISTER_URL: instance.url, CLOISTER_KEY: instance.key };
    const listed = await cli(["ls", "--json"], { env: environment });
    for (const { name } of JSON.parse(listed.stdout).functions)
      await cli(["rm", name], { env: environment });
  });

  test("plain k6 runs a scenario, judges it, and removes what it made", async () => {
    const k6 = await requireK6({ tell: () => {} });
    const env = testEnvironment({
      CLOISTER_URL: instance.url,
      CLOISTER_KEY: instance.key,
      CLOISTER_LOAD_DURATION: "1s",
      CLOISTER_LOAD_RATE: "20",
    });
    const summary = join(out, "plain.json");
    const plain = (...words: string[]): Promise<{ code: number | null; said: string }> => {
      const args = ["run", "--quiet", "--no-usage-report", "--address", "", ...words];
      const child = spawn(k6.path, args, { stdio: ["ignore", "pipe", "pipe"], env });
      let said = "";
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding("utf8").on("data", (text: string) => {
          said += text;
        });
      return new Promise((resolve) => child.once("close", (code) => resolve({ code, said })));
    };
    const script = join(PROJECT_ROOT, "loadtests/scenarios/isolation-ab.ts");
    const { code, said } = await plain("--summary-export", summary, script);
    assert.equal(code, 0, said);
    const { metrics } = JSON.parse(readFileSync(summary, "utf8"));
    assert.ok(metrics.cloister_calls.count > 0);
    assert.equal(metrics["cloister_calls{outcome:failed}"].count, 0);
    assert.ok(metrics.cloister_call_ms.med > 0);
    const replaced = await plain("--vus", "2", "--iterations", "2", script);
    assert.equal(replaced.code, 108, replaced.said);
    assert.match(replaced.said, /Set CLOISTER_LOAD_VUS/);
    env.CLOISTER_URL = "http://192.0.2.1:80";
    const away = await plain(script);
    assert.notEqual(away.code, 0);
    assert.match(away.said, /not an address of this machine/);
    const listed = await cli(["ls", "--json"], { data: instance.dataDirectory });
    assert.deepEqual(JSON.parse(listed.stdout).functions, [], "functions are removed");
  });

  test("what cannot be run is refused before anything is sent", async () => {
    const data = { data: instance.dataDirectory };
    const refused = async (words: string[], says: RegExp, env = {}): Promise<void> => {
      const { code, stderr } = await cli(["load", ...words], { ...data, env });
      assert.equal(code, 2, stderr);
      assert.match(stderr, says);
    };
    const none = { CLOISTER_K6: "/bin/true" };
    const { code, stderr } = await cli(["load", "soak", "--out", out], { ...data, env: none });
    assert.equal(code, 1, stderr);
    assert.match(stderr, /CLOISTER_K6 names \/bin\/true, which does not run as k6/);
    await refused([], /Which scenario\?.*warm-steady/s);
    await refused(["nothing"], /no scenario nothing/);
    await refused(["warm-steady", "--duration", "3h"], /Write it like 10s/);
    await refused(["warm-steady", "--duration", "20m"], /at most 600 s/);
    await refused(["warm-steady", "--duration", "500ms"], /at least 1 s/);
    await refused(["warm-steady", "--vus", "0"], /from 1 to 500/);
    await refused(["streaming", "--rate", "5"], /no use for --rate/);
    await refused(["warm-steady", "--rate", "20000", "--duration", "60s"], /more than the 1000000/);
    await refused(
      ["soak", "--baseline", join(out, "missing.json"), "--out", out],
      /cannot be read/,
    );
    await refused(
      ["burst", "--baseline", "last", "--out", join(out, "empty")],
      /no earlier report/,
    );
    const other = readdirSync(out).find((name) => /^mixed-2.*json$/.test(name)) ?? "";
    await refused(["soak", "--baseline", join(out, other), "--out", out], /of mixed, not of soak/);
    const foreign = join(out, "foreign.json");
    const report = readFileSync(join(out, other), "utf8");
    writeFileSync(foreign, report.replace('"generator":{"name":"k6"', '"generator":{"name":"wrk"'));
    await refused(["mixed", "--baseline", foreign, "--out", out], /measured with wrk, not with k6/);
    await refused(["warm-steady", "--ab", "http://127.0.0.1:9"], /CLOISTER_AB_KEY/);
    await refused(["warm-steady", "--ab", "http://192.0.2.1"], /not an address of this machine/, {
      CLOISTER_AB_KEY: "k",
    });
  });

  test("the counts of the reports are those of the service's own records", async () => {
    // Its last records are written when it has stopped.
    await instance.stop();
    const db = openDatabase(postgres.url);
    try {
      for (const [scenario, { targets, groups }] of reports) {
        const { rows } = await db.pool.query<{ path: string; start: string; n: number }>(
          `select i.path, i.start, count(*)::int as n from invocations i left join functions f on f.id = i.function_id
           where starts_with(f.name, $1) or i.tenant_id = any($2) group by 1, 2`,
          [targets[0]?.prefix, targets[0]?.tenants],
        );
        const kept = new Map(rows.map(({ path, start, n }) => [`${path} ${start}`, n]));
        const reported = new Map<string, number>();
        for (const { path, start, ok } of groups) {
          if (ok === 0) continue;
          const key = `${path} ${start}`;
          reported.set(key, (reported.get(key) ?? 0) + ok);
        }
        const sorted = (counts: Map<string, number>) => [...counts].sort();
        assert.deepEqual(sorted(reported), sorted(kept), scenario);
      }
    } finally {
      await db.close();
    }
  });
});
