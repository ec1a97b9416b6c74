import { type NodeHeartbeat, nodeHeartbeatSchema } from "#queue/nodes";

/** What a node with both paths tells; `change` is what is different. */
export const heartbeatOf = (id: string, change: Partial<NodeHeartbeat> = {}): NodeHeartbeat =>
  nodeHeartbeatSchema.parse({
    id,
    pid: 1,
    atMs: Date.now(),
    startedAtMs: 0,
    draining: false,
    sandboxd: true,
    kinds: ["container", "microvm"],
    images: {},
    processors: 1,
    memoryMb: 1024,
    memoryReservedMb: 0,
    invocations: 0,
    concurrency: 10,
    warm: 0,
    busy: 0,
    prepared: 0,
    ...change,
  });
