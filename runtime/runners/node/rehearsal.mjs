import { randomBytes } from "node:crypto";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { DATA, END, INVOKE, jsonFrame, RESTORED, textFrame } from "./wire.mjs";

/** V8 compiles beside the code that runs: after so many turns it is waited for. V8 counts calls to as many while it rehearses (settling.mjs). */
const STRETCH = 50;
/** Stretches that end a rehearsal. What is being compiled at the freeze would be taken over by the first call of every clone. */
const LAST_STRETCHES = 3;

/**
 * Functions of many shapes: so many that what calls them is compiled for any, and not thrown away when the user's is the first of another.
 */
const ANSWERS = {
  fetch: [
    async (request) =>
      new Response(request.method === "POST" ? await request.text() : request.url, {
        headers: { "x-name": "value" },
      }),
    (request) => new Response(`text ${request.url}`),
    async (request) => new Response(request.url, { status: 201, headers: [["x-name", "value"]] }),
    (request) => {
      const { pathname, searchParams } = new URL(request.url);
      return Response.json({
        pathname,
        name: searchParams.get("name"),
        host: request.headers.get("host"),
      });
    },
    async (request) => {
      const event = request.method === "POST" ? await request.json() : {};
      return event.name ? Response.json(event) : new Response(null, { status: 204 });
    },
    (request) => new Response(Buffer.from(request.method), { headers: new Headers({ etag: "1" }) }),
  ],
  handler: [
    async (event) => ({ echo: event }),
    (event) => `text ${event.rawPath}`,
    (_event, context) => ({ statusCode: 200, headers: { etag: "1" }, body: context.awsRequestId }),
    async () => [1, 2, 3],
    (_event, _context, callback) => callback(null, { name: "value" }),
    async (event) => JSON.stringify(event),
  ],
};

/** What V8 compiled refers weakly to what it was compiled for, and is thrown away with the last of its kind. */
const kept = [];

/** Waits for what V8 compiles, and has it used. Shown to a context of its own, so that user code does not find it. */
function compilersEnd() {
  setFlagsFromString("--allow-natives-syntax");
  try {
    const finish = runInNewContext("() => { %FinalizeOptimization(); }");
    // V8 reads what is in a function at its first call.
    finish();
    return finish;
  } finally {
    setFlagsFromString("--no-allow-natives-syntax");
  }
}

/**
 * Runs what every call runs, from bytes to bytes and without the user's function. The engine, its wire and the target are those that will serve,
 * because what V8 compiles is made for the objects it has seen.
 */
export class Rehearsal {
  #target;
  #take;
  #turns = 0;

  /** `take(bytes)` is to do what is done when they are read from the worker, but for the answer. */
  constructor(target, take) {
    this.#target = target;
    this.#take = take;
  }

  /** So often that V8 has compiled it. Each turn begins as in a process that was restored. */
  async run(turns) {
    const { length } = ANSWERS[this.#target.kind];
    const last = Math.min(Math.ceil(turns / LAST_STRETCHES), 5 * length);
    const finish = compilersEnd();
    for (let left = turns - LAST_STRETCHES * last; left > 0; left -= STRETCH) {
      await this.#turn(Math.min(left, STRETCH), true);
      finish();
    }
    for (let stretch = 0; stretch < LAST_STRETCHES; stretch++) {
      await this.#turn(last, true, keeping);
      finish();
    }
  }

  /** In a process that was restored, so that the pages a call needs are there. */
  async touch(turns) {
    await this.#turn(turns, false);
  }

  async #turn(count, restored, wrapped = (answer) => answer) {
    const target = this.#target;
    const own = target.call;
    const answers = ANSWERS[target.kind];
    try {
      for (let left = count; left > 0; left--) {
        this.#turns++;
        target.call = wrapped(answers[this.#turns % answers.length]);
        this.#take(requestOf(this.#turns, restored));
        // As a socket goes on that was paused: the end of the rehearsal tells it to, and V8 would throw away what it compiled for ticks without arguments.
        process.nextTick(nothing, target, answers);
        // Answers leave at the end of a turn of the event loop.
        await new Promise((resolve) => setImmediate(resolve));
      }
    } finally {
      target.call = own;
    }
  }
}

const nothing = () => {};

const keeping =
  (answer) =>
  (...given) => {
    const answered = answer(...given);
    kept.push(given, answered);
    return answered;
  };

/** The frames of a call: with a body and without one, so that each of the answers meets both. */
function requestOf(turn, afterRestore) {
  const hasBody = turn % 4 < 2;
  const invoke = {
    id: "inv_0",
    kind: turn % 4 === 0 ? "event" : "http",
    method: hasBody ? "POST" : "GET",
    url: "http://localhost/path?name=value",
    path: "/path?name=value",
    // V8 takes an empty list for another kind of thing.
    headers:
      turn % 5 === 0
        ? []
        : [
            ["host", "localhost"],
            ["content-type", "application/json"],
          ],
    deadlineMs: 1000,
    hasBody,
  };
  // As it will be: what a restored process hears, and the call right behind it.
  const restored = {
    seed: randomBytes(32).toString("base64"),
    nowMs: Date.now(),
    pid: process.pid,
  };
  const frames = afterRestore ? [jsonFrame(RESTORED, 0, restored)] : [];
  frames.push(jsonFrame(INVOKE, turn, invoke));
  if (hasBody) frames.push(textFrame(DATA, turn, '{"name":"value"}'));
  frames.push(textFrame(END, turn, ""));
  return Buffer.concat(frames);
}
