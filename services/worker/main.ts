import { totalmem } from "node:os";
import { pino } from "pino";
import { readEnvironment, required } from "#config/environment";
import { readPlacementTable } from "#config/placement-rules";
import { readTraceSettings } from "#config/trace-environment";
import { newId } from "#contracts/ids";
import { openWorkerDatabase } from "./database.ts";
import { parsePrepared } from "./pool/prepared-cells.ts";
import { WorkerService, type WorkerSettings } from "./worker-service.ts";

/** Memory of a prepared cell whose size CLOISTER_PREPARED does not name: the default of functions, MiB. */
const PREPARED_MEMORY_MB = 256;

const environment = readEnvironment();
const traces = readTraceSettings();
const log = pino(
  { level: environment.CLOISTER_LOG_LEVEL, base: { service: "worker" } },
  pino.destination(2),
);

// Files of bundles get exactly the modes they are unpacked with.
process.umask(0o022);

const nodeId = newId("node");
const settings: WorkerSettings = {
  nodeId,
  redisUrl: required(environment, "CLOISTER_REDIS_URL"),
  linkSecret: required(environment, "CLOISTER_LINK_SECRET"),
  sandboxdSocket: required(environment, "CLOISTER_SANDBOXD_SOCKET"),
  bundlesDir: required(environment, "CLOISTER_BUNDLES_DIR"),
  memoryMb: environment.CLOISTER_NODE_MEMORY_MB ?? Math.floor((totalmem() / 1024 / 1024) * 0.75),
  concurrency: environment.CLOISTER_WORKER_CONCURRENCY,
  ...(environment.CLOISTER_PATHS ? { paths: environment.CLOISTER_PATHS } : {}),
  idleMs: environment.CLOISTER_IDLE_MS,
  prepared: parsePrepared(environment.CLOISTER_PREPARED, PREPARED_MEMORY_MB),
  clonesPerFunction: environment.CLOISTER_CLONES_PER_FUNCTION,
  warmTurns: environment.CLOISTER_SNAPSHOT_WARM_TURNS,
  queueWaitMs: environment.CLOISTER_QUEUE_WAIT_MS,
  retentionDays: environment.CLOISTER_RETENTION_DAYS,
  ...(environment.CLOISTER_RECORDS_DIR ? { recordsDir: environment.CLOISTER_RECORDS_DIR } : {}),
  placement: readPlacementTable(environment.CLOISTER_PLACEMENT_RULES),
  ...(traces ? { traces } : {}),
  ...(environment.CLOISTER_WORKER_METRICS ? { metrics: environment.CLOISTER_WORKER_METRICS } : {}),
};
const database = openWorkerDatabase(required(environment, "CLOISTER_DATABASE_URL"));
const worker = new WorkerService(settings, database, log);

let stopping = false;
function stop(signal: NodeJS.Signals): void {
  if (stopping) {
    log.warn({ signal }, "ending at once");
    process.exit(1);
  }
  stopping = true;
  log.info({ signal }, "draining");
  worker.drain().then(
    () => {
      log.info("drained");
      process.exit(0);
    },
    (error: Error) => {
      log.error({ err: error.message }, "drain failed");
      process.exit(1);
    },
  );
}
process.on("SIGTERM", stop);
process.on("SIGINT", stop);

// A state nobody foresaw is not worked on with: the supervisor starts a new worker, callers get worker_lost at once.
process.on("uncaughtException", (error) => {
  log.fatal({ err: error.message, stack: error.stack }, "uncaught");
  process.exit(1);
});

await worker.start();
log.info({ ready: true, nodeId, memoryMb: settings.memoryMb }, "ready");
