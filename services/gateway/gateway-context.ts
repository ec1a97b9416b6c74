import type { Change } from "#contracts/invocation";
import type { PlacementEngine } from "#contracts/placement-engine";
import type { Database } from "#db/database";
import type { InvocationProducer } from "#queue/invocation-producer";
import type { Subscriber } from "#queue/pubsub";
import type { QuotaCounters } from "#queue/quota-counters";
import type { Authenticator } from "./auth/authenticator.ts";
import type { CallContext } from "./invoke/call-context.ts";
import type { GatewayMetrics } from "./metrics.ts";

/** What the routes need of their gateway. */
export interface GatewayContext {
  db: Database;
  producer: InvocationProducer;
  subscriber: Subscriber;
  counters: QuotaCounters;
  /** GB-seconds of a tenant's month by its records. */
  readMonthTotal: (tenantId: string, month: string) => Promise<number>;
  authenticator: Authenticator;
  metrics: GatewayMetrics;
  /** All gateways share it: what one has sealed, the others open. */
  sessionSecret: string;
  /** The rules that calls are placed by. */
  placement: PlacementEngine;
  /** What users type before a path. */
  publicUrl: string;
  draining: () => boolean;
  /** Aborted when the gateway drains: what has no end of its own ends then. */
  drained: AbortSignal;
  /** Drops what is cached of it here, and tells the other processes. */
  changed: (change: Change) => Promise<void>;
  onProblem: (error: Error) => void;
  /** For invocations that the gateway makes itself. */
  calls: CallContext;
}
