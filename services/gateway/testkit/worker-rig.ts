import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLog } from "#telemetry/log";
import { openWorkerDatabase } from "../../worker/database.ts";
import { SandboxdStandIn } from "../../worker/testkit/sandboxd-stand-in.ts";
import { WorkerService } from "../../worker/worker-service.ts";
import { type GatewayRig, startGatewayRig } from "./gateway-rig.ts";

/** The real worker and real runners behind the gateway; only what isolates them is left out, which is tested where it is made. */
export interface WorkerRig {
  rig: GatewayRig;
  sandboxd: SandboxdStandIn;
  worker: WorkerService;
  stop(): Promise<void>;
}

/** `before` is done before the worker is there. */
export async function startWorkerRig(
  before: (rig: GatewayRig) => Promise<unknown> = async () => {},
): Promise<WorkerRig> {
  process.umask(0o022);
  const folder = await mkdtemp(join(tmpdir(), "cloister-with-worker-"));
  const rig = await startGatewayRig();
  await rig.worker.stop();
  await before(rig);
  const sandboxd = new SandboxdStandIn(join(folder, "bundles"));
  await sandboxd.listen();
  const worker = new WorkerService(
    {
      nodeId: "node_real",
      redisUrl: rig.redis.url,
      linkSecret: rig.secret,
      sandboxdSocket: sandboxd.path,
      bundlesDir: join(folder, "bundles"),
      memoryMb: 4096,
      concurrency: 50,
      idleMs: 60_000,
      prepared: [],
      queueWaitMs: 20_000,
      retentionDays: 40,
    },
    openWorkerDatabase(rig.postgres.url),
    createLog("worker", "silent"),
  );
  await worker.start();
  return {
    rig,
    sandboxd,
    worker,
    async stop() {
      await worker.drain();
      await sandboxd.close();
      await rig.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
