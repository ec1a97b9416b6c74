import type { LoadFunction } from "./plan.ts";

/** Answers at once, with the bytes of examples/hello. */
export const hello = (more: Partial<LoadFunction> = {}): LoadFunction => ({
  name: "hello",
  source: `export default { fetch: () => Response.json({ message: "Hello, world!" }) };\n`,
  ...more,
});

/** Computes for `?ms=` milliseconds of wall clock, at most 1000, then answers. */
export const busy = (more: Partial<LoadFunction> = {}): LoadFunction => ({
  name: "busy",
  source: `export default {
  fetch(request) {
    const ms = Math.min(1000, Number(new URL(request.url).searchParams.get("ms")) || 0);
    const end = performance.now() + ms;
    let turns = 0;
    while (performance.now() < end) turns++;
    return Response.json({ turns });
  },
};
`,
  ...more,
});

/** Gives the request's body back while it comes. */
export const echo = (more: Partial<LoadFunction> = {}): LoadFunction => ({
  name: "echo",
  source: `export default {
  fetch: (request) =>
    new Response(request.body, { headers: { "content-type": "application/octet-stream" } }),
};
`,
  ...more,
});

/** Streams `?chunks=` chunks of `?bytes=` bytes with `?pause=` milliseconds between them. */
export const chunks = (more: Partial<LoadFunction> = {}): LoadFunction => ({
  name: "chunks",
  source: `import { setTimeout as pause } from "node:timers/promises";

async function* parts(count, bytes, ms) {
  const part = new Uint8Array(bytes).fill(120);
  for (let sent = 0; sent < count; sent++) {
    if (sent > 0 && ms > 0) await pause(ms);
    yield part;
  }
}

export default {
  fetch(request) {
    const { searchParams } = new URL(request.url);
    const read = (name, most) => Math.min(most, Number(searchParams.get(name)) || 0);
    const body = ReadableStream.from(parts(read("chunks", 1000), read("bytes", 65536), read("pause", 100)));
    return new Response(body, { headers: { "content-type": "application/octet-stream" } });
  },
};
`,
  ...more,
});
