import "./loading.mjs";
import "./contexts.mjs";
import "./handler-call.mjs";
import "./preloaded-module.mjs";

/** Loads what functions commonly need and runs it once, in steps; stops as soon as `engine.begun`. */
export async function preload(engine) {
  for (const step of STEPS) {
    await step();
    // Lets INIT in.
    await new Promise((resolve) => setImmediate(resolve));
    if (engine.begun) return;
  }
}

const STEPS = [
  () => import("./preloaded-module.cjs"),
  () => new URL("http://localhost/path?query=1").searchParams.get("query"),
  () => globalThis.Headers,
  async () => {
    const abort = new AbortController();
    const request = new Request("http://localhost/", {
      method: "POST",
      headers: [["content-type", "application/json"]],
      body: "{}",
      signal: abort.signal,
    });
    await request.json();
    const response = Response.json({ ok: true }, { headers: { "x-one": "1" } });
    for await (const _piece of response.body);
    new Response("text").headers.get("content-type");
  },
  async () => {
    const stream = new ReadableStream({
      pull(controller) {
        controller.enqueue(new Uint8Array(1));
        controller.close();
      },
    });
    await new Response(stream).arrayBuffer();
    new TextDecoder().decode(new TextEncoder().encode("text"));
  },
];
