/** W3C Trace Context, level 1: version, trace, parent, flags. */
const TRACEPARENT = /^[0-9a-f]{2}-([0-9a-f]{8})([0-9a-f]{24})-([0-9a-f]{16})-[0-9a-f]([0-9a-f])/;
let shown = false;

/** Lambda tells a handler's trace in this variable; with more calls at once it is that of the one that began last. */
function showTrace(headers) {
  const traceparent = headers.find(([name]) => name === "traceparent")?.[1];
  const [, time, unique, parent, flags] = TRACEPARENT.exec(traceparent ?? "") ?? [];
  if (parent !== undefined) {
    process.env._X_AMZN_TRACE_ID = `Root=1-${time}-${unique};Parent=${parent};Sampled=${Number.parseInt(flags, 16) & 1}`;
    shown = true;
  } else if (shown) {
    delete process.env._X_AMZN_TRACE_ID;
    shown = false;
  }
}

/** The second argument of `handler(event, context)`. */
export function handlerContext(init, call) {
  showTrace(call.headers);
  return {
    functionName: init.function,
    functionVersion: String(init.version),
    awsRequestId: call.id,
    invocationId: call.id,
    memoryLimitInMB: init.memoryMb,
    invokedFunctionArn: `arn:cloister:function:${init.function}`,
    logGroupName: init.function,
    logStreamName: init.function,
    callbackWaitsForEmptyEventLoop: false,
    getRemainingTimeInMillis: () => call.remainingMs(),
    get signal() {
      return call.signal;
    },
  };
}

/** The third argument of `fetch(request, env, ctx)`. */
export function fetchContext(init, call) {
  return {
    functionName: init.function,
    functionVersion: String(init.version),
    invocationId: call.id,
    memoryLimitInMB: init.memoryMb,
    getRemainingTimeInMillis: () => call.remainingMs(),
    get signal() {
      return call.signal;
    },
    /**
     * Work that goes on after the answer. It is not waited for: it has until the invocation's deadline, or until the sandbox
     * ends (with `reuse: fresh`, as soon as the answer is whole). A rejection is logged and harms nobody.
     */
    waitUntil(promise) {
      Promise.resolve(promise).catch((error) => console.error("waitUntil failed:", error));
      const timer = setTimeout(() => {
        console.error("waitUntil was not done at the invocation's deadline.");
      }, call.remainingMs());
      Promise.resolve(promise).then(
        () => clearTimeout(timer),
        () => clearTimeout(timer),
      );
      timer.unref();
    },
    passThroughOnException() {},
  };
}
