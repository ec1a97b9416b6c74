import type { Hono } from "hono";
import { tenantNames } from "#db/tenants";
import { CloisterError } from "#errors/catalogue";
import { LiveWatch } from "#queue/live";
import { Publisher } from "#queue/pubsub";
import type { GatewayContext } from "../../gateway-context.ts";
import { eventOfAll, eventOfTenant } from "../../live/live-event.ts";
import { TenantNames } from "../../live/tenant-names.ts";
import { livePage } from "../../ui/live-view.ts";
import { eventStream } from "../log-stream.ts";
import type { Door } from "./sign-in.ts";
import { readersOnly, show, tenantFor, type UiContext, type UiEnv } from "./ui-env.ts";

/** Streams of one gateway at once, and of one key. */
const MOST_WATCHERS = 200;
const MOST_OF_ONE = 10;
/** Whoever watches is asked for the key's worth again after this, ms. */
const ASK_AGAIN_MS = 5000;

/** The live page, and the events that keep it so. */
export function registerLivePages(ui: Hono<UiEnv>, gateway: GatewayContext, door: Door): void {
  const watch = new LiveWatch(gateway.subscriber, new Publisher(gateway.producer.redis));
  const names = new TenantNames((ids) => tenantNames(gateway.db, ids));
  const ofKey = new Map<string, number>();

  /** Whose calls are shown; all tenants' when undefined. */
  const watchedTenant = async (c: UiContext) => {
    const viewer = c.get("viewer");
    const asked = c.req.query("tenant");
    if (viewer.operator && !asked) return undefined;
    return tenantFor(gateway, viewer, asked);
  };

  ui.get("/live", readersOnly, async (c) =>
    show(c, livePage(c.get("viewer"), await watchedTenant(c))),
  );

  ui.get("/live/events", readersOnly, async (c) => {
    const tenant = await watchedTenant(c);
    const { keyId } = c.get("caller");
    const mine = ofKey.get(keyId) ?? 0;
    if (watch.watchers >= MOST_WATCHERS || mine >= MOST_OF_ONE)
      throw new CloisterError("capacity_exhausted", "Too many live pages are open");
    ofKey.set(keyId, mine + 1);
    return eventStream(
      gateway.drained,
      async ({ say, end }) => {
        let saying = Promise.resolve();
        const stop = await watch.watch((batch) => {
          if (tenant) {
            const event = eventOfTenant(batch, tenant.id);
            if (event) say(event);
            return;
          }
          // One after the other, whatever has to be read for one of them.
          saying = saying.then(async () =>
            say(eventOfAll(batch, await names.of(batch.calls.map(({ tenantId }) => tenantId)))),
          );
        });
        const timer = setInterval(
          () => void door.stillOpen(c).then((open) => open || end()),
          ASK_AGAIN_MS,
        );
        return () => {
          clearInterval(timer);
          stop();
        };
      },
      () => {
        const left = (ofKey.get(keyId) ?? 1) - 1;
        if (left > 0) ofKey.set(keyId, left);
        else ofKey.delete(keyId);
      },
    );
  });
}
