import { Call } from "./call.mjs";
import { fetchContext, handlerContext } from "./contexts.mjs";
import { serveFetch } from "./fetch-call.mjs";
import { serveHandler } from "./handler-call.mjs";
import { loadFunction } from "./loading.mjs";
import { currentCall } from "./logs.mjs";
import { offerStandIns } from "./stand-ins.mjs";

/** Takes frames and drops them. */
const NOWHERE = { send() {}, sendData() {}, sendWindow() {}, sendLog() {}, flush() {} };
const INIT = { function: "preload", version: 0, memoryMb: 0 };
/** Often enough that V8 keeps the byte code of what every call runs, and has seen which types pass. */
const ROUNDS = 20;

const HANDLER = {
  arity: 2,
  call: async (event) => ({ statusCode: 200, body: event.body }),
};

/**
 * Loads what functions commonly need and runs it: modules of both kinds, both kinds of call, console. In steps, which end as soon as
 * `engine.begun`.
 */
export async function preload(engine) {
  for (const step of STEPS) {
    await step();
    // Lets INIT in.
    await new Promise((resolve) => setImmediate(resolve));
    if (engine.begun) return;
  }
}

const STEPS = [
  offerStandIns,
  () => load("preloaded-module.mjs"),
  () => load("preloaded-module.cjs"),
  async () => {
    const stream = new ReadableStream({
      pull(controller) {
        controller.enqueue(new TextEncoder().encode("text"));
        controller.close();
      },
    });
    new TextDecoder().decode(await new Response(stream).arrayBuffer());
    await new Request("http://localhost/", { method: "POST", body: "{}" }).json();
  },
  ...Array(ROUNDS).fill(callBoth),
];

/** Each round is a step of its own: an INIT that comes meanwhile waits for one, not for all. */
async function callBoth() {
  const fetchTarget = await load("preloaded-module.mjs");
  const fetchCall = newCall();
  const fetchArguments = [fetchCall, fetchTarget, {}, fetchContext(INIT, fetchCall)];
  await currentCall.run(fetchCall, serveFetch, ...fetchArguments);
  const handlerCall = newCall();
  const handlerArguments = [handlerCall, HANDLER, handlerContext(INIT, handlerCall)];
  await currentCall.run(handlerCall, serveHandler, ...handlerArguments);
}

const load = (name) => loadFunction(import.meta.dirname, name);

function newCall() {
  const head = {
    id: "inv_0",
    kind: "http",
    method: "POST",
    url: "http://localhost/path?name=value",
    path: "/path?name=value",
    headers: [
      ["host", "localhost"],
      ["content-type", "application/json"],
    ],
    deadlineMs: 1000,
    hasBody: true,
  };
  const call = new Call(NOWHERE, 1, JSON.parse(JSON.stringify(head)), () => {});
  call.takeData(Buffer.from("{}"));
  call.takeEnd();
  return call;
}
