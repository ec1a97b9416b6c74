import { Call } from "./call.mjs";
import { describeFault, NoHandler, plainFault, recalledFault } from "./faults.mjs";
import { Line } from "./line.mjs";
import { CallLog, currentCall } from "./logs.mjs";
import { guardBatches, renew } from "./renewal.mjs";
import {
  CANCEL,
  DATA,
  END,
  ERROR,
  INIT,
  INIT_DONE,
  INVOKE,
  jsonFrame,
  ProtocolError,
  parseObject,
  RECALL,
  RESTORED,
  WINDOW,
} from "./wire.mjs";

/** Exit code after an exception nobody caught. */
const EXIT_FAULT = 70;
/** An event, or the request a handler gets whole, is at most this: the platform's limit for synchronous bodies. */
const MAX_WHOLE_BYTES = 6 << 20;
const RESERVED_ENV = /^$|[=\0]/;
const sinceMs = (startedMs) => Math.round((performance.now() - startedMs) * 1000) / 1000;

/** What the worker says, turned into calls of the function. */
export class Engine {
  /** Whether INIT has come. */
  begun = false;
  #wire;
  #sayReady;
  #init;
  #target;
  #env;
  #serve;
  /** Why the function cannot be called, once INIT_DONE has said so. */
  #refusal;
  #calls = new Map();
  #lastStream = 0;
  /** Calls that begin when the read they came with is decoded, so that a small body is there at once. */
  #starting = [];
  #line;
  #outside;
  /** An invocation that was cancelled does not end: the process does, once the others have. */
  #exiting = false;
  /** What is to be run after a restore, when this was prepared to be frozen. */
  #afterRestore;
  /** While it runs, calls wait. */
  #renewing = false;
  /** Ends the rehearsal that goes on. */
  #rehearsed;

  constructor(wire, sayReady) {
    this.#wire = wire;
    this.#sayReady = sayReady;
    this.#line = new Line(wire, (call) => currentCall.run(call, this.#serve, call));
    this.#outside = new CallLog(wire, 0);
  }

  /** Where output of the code that runs now belongs. Without a context it is the only call there is. */
  get log() {
    let call = currentCall.getStore();
    if (!call && this.#calls.size - this.#line.length === 1)
      call = this.#calls.values().next().value;
    return call && !call.closed ? call.log : this.#outside;
  }

  frame(type, stream, payload) {
    if (type === INVOKE) {
      this.#open(stream, payload);
      return;
    }
    const call = this.#calls.get(stream);
    switch (type) {
      case INIT:
        if (this.begun || stream !== 0) throw new ProtocolError("a second INIT");
        this.begun = true;
        this.#begin(checkedInit(parseObject(payload)));
        return;
      case RESTORED:
        if (stream !== 0) throw new ProtocolError("RESTORED on a stream");
        this.#renew(parseObject(payload));
        return;
      case DATA:
      case END:
        if (!call) {
          if (stream === 0 || stream > this.#lastStream)
            throw new ProtocolError("a body for a stream that is not open");
        } else if (type === DATA) this.#data(call, payload);
        else {
          call.takeEnd();
          if (this.#target?.kind === "handler") this.#starting.push(call);
        }
        return;
      case WINDOW:
        call?.takeCredit(payload);
        return;
      case CANCEL:
        this.#cancel(call);
        return;
      case RECALL:
        if (call?.behind && this.#withdraw(call)) call.fail(recalledFault());
        return;
      default:
        throw new ProtocolError(`a frame of type ${type}`);
    }
  }

  /** The frames of one read are decoded. */
  batch() {
    if (this.#starting.length === 0 || this.#renewing) return;
    const calls = this.#starting;
    this.#starting = [];
    for (const call of calls) {
      if (call.closed) continue;
      // A process that is about to exit begins nothing that another can.
      if (this.#exiting && call.behind) call.fail(recalledFault());
      else this.#line.take(call);
    }
  }

  /** What happens to exceptions and rejections that nobody catches, and to what was said when the process ends. */
  watchProcess() {
    const last = (thrown, name) => {
      // A function that listens itself has decided to go on.
      if (process.listenerCount(name) > 1) return;
      this.#endByFault(thrown);
    };
    process.on("uncaughtException", (error) => last(error, "uncaughtException"));
    process.on("unhandledRejection", (reason) => last(reason, "unhandledRejection"));
    process.on("exit", () => {
      this.#rehearsed?.();
      for (const call of this.#calls.values()) call.log.finish();
      this.#outside.finish();
      this.#wire.flush();
    });
  }

  #open(stream, payload) {
    if (!this.begun) throw new ProtocolError("INVOKE before INIT");
    if (stream <= this.#lastStream) throw new ProtocolError("a stream number is used again");
    this.#lastStream = stream;
    const call = new Call(this.#wire, stream, parseObject(payload), this.#forget);
    this.#outside.renew();
    if (!this.#target) {
      if (!this.#refusal) throw new ProtocolError("INVOKE before INIT_DONE");
      this.#wire.send(jsonFrame(ERROR, stream, this.#refusal));
      return;
    }
    this.#calls.set(stream, call);
    if (this.#target.kind === "fetch") this.#starting.push(call);
  }

  #forget = (call, exiting) => {
    this.#calls.delete(call.stream);
    this.#line.left(call);
    if (exiting && !this.#refusal) {
      this.#exiting = true;
      this.#recallAll();
    }
    if (this.#exiting && this.#calls.size === 0)
      setImmediate(() => this.#wire.whenSent(() => process.exit(EXIT_FAULT)));
  };

  #data(call, payload) {
    call.takeData(payload);
    if (this.#target.kind !== "handler") return;
    if (call.bodyBytes > MAX_WHOLE_BYTES)
      call.fail(
        plainFault(
          "BodyTooLarge",
          "The request body is over 6 MiB, more than a handler's event can carry. Export fetch(request), which streams.",
          "function_error",
        ),
      );
    else call.consumed(payload.length);
  }

  #cancel(call) {
    if (!call) return;
    const waits = this.#target.kind === "handler" && !call.bodyEnded;
    const withdrawn = this.#withdraw(call);
    call.takeCancel();
    // No user code has seen it.
    if (waits || withdrawn) call.end();
  }

  /** Takes a call out that has not begun though its request is whole; false if it is none. */
  #withdraw(call) {
    const index = this.#starting.indexOf(call);
    if (index >= 0) this.#starting.splice(index, 1);
    return index >= 0 || this.#line.leave(call);
  }

  /** Nothing begins here any more. */
  #recallAll() {
    for (const call of this.#line.leaveAll()) call.fail(recalledFault());
  }

  async #begin(init) {
    this.#sayReady();
    const startedMs = performance.now();
    try {
      for (const [name, value] of Object.entries(init.env)) process.env[name] = value;
      process.env.CLOISTER_FUNCTION_NAME = init.function;
      process.env.CLOISTER_FUNCTION_VERSION = String(init.version);
      if (init.snapshot) guardBatches();
      process.chdir(init.root);
      process.argv[1] = init.root;
      const { loadFunction } = await import("./loading.mjs");
      const load = () => loadFunction(init.root, init.entry);
      if (!init.snapshot) {
        const target = await load();
        await this.#serveBy(target, init);
        this.#target = target;
        this.#sayInitDone({ ok: true, initMs: sinceMs(startedMs) });
        return;
      }
      const { compiledWhole, settle } = await import("./settling.mjs");
      const target = await compiledWhole(load);
      const initMs = sinceMs(startedMs);
      await this.#serveBy(target, init);
      const rehearse = () => this.#rehearse(target);
      this.#afterRestore = await settle(target, init.snapshot.warmTurns, rehearse);
      this.#target = target;
      this.#sayInitDone({ ok: true, initMs });
    } catch (error) {
      const code = error instanceof NoHandler ? "function_no_handler" : "function_init_error";
      this.#refuse(describeFault(error, code));
    }
  }

  /** Makes ready to answer calls by `target`. */
  async #serveBy(target, init) {
    this.#init = init;
    this.#env = Object.freeze({ ...init.env });
    this.#serve = await this.#serveOf(target);
  }

  /**
   * Has `target` answer what its `take(bytes)` says, as if the worker had, until its `done()`. What a call reads is changed here once if it changes
   * later: V8 throws away what it compiled for a field that had never changed.
   */
  #rehearse(target) {
    const { take, done } = this.#wire.rehearse();
    const afterRestore = this.#afterRestore;
    const lastStream = this.#lastStream;
    this.#afterRestore = null;
    this.#renewing = true;
    this.#renewing = false;
    this.#target = target;
    this.#lastStream = 0;
    this.#rehearsed = () => {
      this.#rehearsed = undefined;
      this.#target = undefined;
      this.#afterRestore = afterRestore;
      this.#lastStream = lastStream;
      done();
    };
    return { take, done: () => this.#rehearsed?.() };
  }

  /** The function cannot be called, now or ever. */
  #refuse(error) {
    this.#target = undefined;
    this.#refusal = error;
    this.#sayInitDone({ ok: false, error });
  }

  #sayInitDone(done) {
    this.#outside.finish();
    this.#wire.send(jsonFrame(INIT_DONE, 0, done));
    this.#wire.flush();
  }

  /** Whoever restored this process has not heard its first READY. Only then does code of the function run. */
  #renew(restored) {
    const startedMs = performance.now();
    renew(restored);
    const turns = this.#target && Number.isInteger(restored.warmTurns) ? restored.warmTurns : 0;
    if (!this.#afterRestore && turns <= 0) {
      this.#sayReady({ renewMs: sinceMs(startedMs) });
      return;
    }
    this.#renewing = true;
    this.#comeBack(startedMs, turns);
  }

  /** Runs the hooks, and touches what a call will touch, while no call waits for it. */
  async #comeBack(startedMs, turns) {
    try {
      await this.#afterRestore?.();
    } catch (thrown) {
      this.#renewing = false;
      this.#starting = [];
      this.#refuse(describeFault(thrown, "function_init_error"));
      // So that the worker hands this sandbox to nobody else.
      this.#refusal.exiting = true;
      for (const call of [...this.#calls.values()]) call.fail(this.#refusal);
      return;
    }
    const renewMs = sinceMs(startedMs);
    this.#outside.finish();
    const { Rehearsal } = await import("./rehearsal.mjs");
    this.#renewing = false;
    // Who is called already wins nothing by it.
    if (turns > 0 && this.#calls.size === 0 && !this.#wire.midFrame) {
      const target = this.#target;
      const stage = this.#rehearse(target);
      await new Rehearsal(target, stage.take).touch(turns);
      stage.done();
      this.#target = target;
    }
    this.#sayReady({ renewMs });
    this.batch();
  }

  async #serveOf(target) {
    if (target.kind === "fetch") {
      const [{ serveFetch }, { fetchContext }, { offerStandIns }] = await Promise.all([
        import("./fetch-call.mjs"),
        import("./contexts.mjs"),
        import("./stand-ins.mjs"),
      ]);
      offerStandIns();
      return (call) => void serveFetch(call, target, this.#env, fetchContext(this.#init, call));
    }
    const [{ serveHandler }, { handlerContext }] = await Promise.all([
      import("./handler-call.mjs"),
      import("./contexts.mjs"),
    ]);
    return (call) => void serveHandler(call, target, handlerContext(this.#init, call));
  }

  /** No code of this process can be relied on any more. */
  #endByFault(thrown) {
    this.#rehearsed?.();
    if (!this.#target && !this.#refusal && this.begun) {
      // It struck while the module was loading.
      const error = describeFault(thrown, "function_init_error");
      this.#refusal = error;
      this.#wire.send(jsonFrame(INIT_DONE, 0, { ok: false, error }));
    }
    const fault = { ...describeFault(thrown, "function_error"), exiting: true };
    this.#outside.write(2, `Uncaught ${fault.stack || fault.message}\n`);
    this.#recallAll();
    for (const call of [...this.#calls.values()]) call.fail(fault);
    this.#wire.whenSent(() => process.exit(EXIT_FAULT));
  }
}

function checkedInit(init) {
  const { root, entry, env = {}, version } = init;
  if (typeof init.function !== "string" || typeof root !== "string")
    throw new ProtocolError("INIT lacks function or root");
  if (typeof version !== "number" && typeof version !== "string")
    throw new ProtocolError("INIT lacks version");
  if (entry !== undefined && typeof entry !== "string")
    throw new ProtocolError("INIT's entry is no text");
  const { snapshot } = init;
  if (snapshot !== undefined && !(Number.isInteger(snapshot?.warmTurns) && snapshot.warmTurns >= 0))
    throw new ProtocolError("INIT's snapshot lacks warmTurns");
  if (typeof env !== "object" || env === null || Array.isArray(env))
    throw new ProtocolError("INIT's env is no object");
  for (const [name, value] of Object.entries(env))
    if (RESERVED_ENV.test(name) || typeof value !== "string" || value.includes("\0"))
      throw new ProtocolError("INIT's env has a name or value that cannot be set");
  return { ...init, env };
}
