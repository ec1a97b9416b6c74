import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { LiveBatch } from "#contracts/live";
import { type RedisServer, startRedisServer } from "#testkit/redis-server";
import { hearWatchers, LiveWatch, publishLive } from "./live.ts";
import { Publisher, Subscriber } from "./pubsub.ts";

let redis: RedisServer;
let gateway: { subscriber: Subscriber; publisher: Publisher };
let worker: { subscriber: Subscriber; publisher: Publisher };

before(async () => {
  redis = await startRedisServer();
  const end = () => ({
    subscriber: new Subscriber(redis.url),
    publisher: Publisher.connect(redis.url),
  });
  [gateway, worker] = [end(), end()];
});
after(async () => {
  for (const end of [gateway, worker])
    await Promise.all([end?.subscriber.close(), end?.publisher.close()]);
  await redis?.stop();
});

const batchOf = (nodeId: string): LiveBatch => ({
  ...{ nodeId, atMs: 1, spanMs: 1, sums: [], calls: [], uncounted: 0 },
  pool: { busy: 0, warm: 0, pooled: 0, prepared: 0, starting: 0, waiting: 0 },
});

test("a node tells when somebody watches; what is no batch is heard by nobody, and nobody hears what they no longer watch", async () => {
  const watch = new LiveWatch(gateway.subscriber, gateway.publisher);
  const stopHearing = await hearWatchers(worker.subscriber, (forMs) => {
    assert.ok(forMs > 0);
    void worker.publisher.publish("cloister:live", { nodeId: "no batch" });
    void publishLive(worker.publisher, batchOf("node_1"));
  });
  // Whoever cannot be understood asks for nothing.
  await gateway.publisher.publish("cloister:live:watched", { forMs: "for ever" });
  const first = Promise.withResolvers<LiveBatch>();
  const second = Promise.withResolvers<LiveBatch>();
  let late = 0;
  const endFirst = await watch.watch((batch) => {
    late++;
    first.resolve(batch);
  });
  const endSecond = await watch.watch(second.resolve);
  assert.deepEqual(await first.promise, batchOf("node_1"));
  assert.deepEqual(await second.promise, batchOf("node_1"));
  assert.equal(watch.watchers, 2);
  endFirst();
  const before = late;
  const third = Promise.withResolvers<LiveBatch>();
  const endThird = await watch.watch(third.resolve);
  await third.promise;
  assert.equal(late, before);
  endSecond();
  endThird();
  assert.equal(watch.watchers, 0);
  // Once the subscription has ended nobody gets a batch; a new watcher begins a new one.
  await gateway.subscriber.subscribe("cloister:test", () => {});
  assert.equal(await publishLive(worker.publisher, batchOf("node_2")), 0);
  const again = Promise.withResolvers<LiveBatch>();
  const endAgain = await watch.watch(again.resolve);
  assert.equal((await again.promise).nodeId, "node_1");
  endAgain();
  await stopHearing();
});
