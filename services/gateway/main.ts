import { readEnvironment, required } from "#config/environment";
import { readPlacementTable } from "#config/placement-rules";
import { readTraceSettings } from "#config/trace-environment";
import { createLog } from "#telemetry/log";
import { GatewayService } from "./gateway-service.ts";

const environment = readEnvironment();
const traces = readTraceSettings();
const log = createLog("gateway", environment.CLOISTER_LOG_LEVEL);

const gateway = new GatewayService(
  {
    databaseUrl: required(environment, "CLOISTER_DATABASE_URL"),
    redisUrl: required(environment, "CLOISTER_REDIS_URL"),
    listen: environment.CLOISTER_LISTEN,
    replyListen: required(environment, "CLOISTER_REPLY_LISTEN"),
    linkSecret: required(environment, "CLOISTER_LINK_SECRET"),
    queueWaitMs: environment.CLOISTER_QUEUE_WAIT_MS,
    ...(traces ? { traces } : {}),
    placement: readPlacementTable(environment.CLOISTER_PLACEMENT_RULES),
    ...(environment.CLOISTER_RECORDS_DIR ? { recordsDir: environment.CLOISTER_RECORDS_DIR } : {}),
    backlog: {
      calls: environment.CLOISTER_BACKLOG,
      callsOfTenant: environment.CLOISTER_BACKLOG_PER_TENANT,
    },
    ...(environment.CLOISTER_PUBLIC_URL ? { publicUrl: environment.CLOISTER_PUBLIC_URL } : {}),
  },
  log,
);

let stopping = false;
function stop(signal: NodeJS.Signals): void {
  if (stopping) {
    log.warn({ signal }, "ending at once");
    log.flush(() => process.exit(1));
    return;
  }
  stopping = true;
  log.info({ signal }, "draining");
  gateway.drain().then(
    () => {
      log.info("drained");
      log.flush(() => process.exit(0));
    },
    (error: Error) => {
      log.error({ err: error.message }, "drain failed");
      log.flush(() => process.exit(1));
    },
  );
}
process.on("SIGTERM", stop);
process.on("SIGINT", stop);

// A state nobody foresaw is not worked on with: the supervisor starts a new gateway, callers see their connection break.
process.on("uncaughtException", (error) => {
  log.fatal({ err: error.message, stack: error.stack }, "uncaught");
  log.flush(() => process.exit(1));
});

const url = await gateway.start();
// On stdout, whatever the log's level: the supervisor waits for this line.
process.stdout.write(`${JSON.stringify({ ready: true, service: "gateway", url })}\n`);
