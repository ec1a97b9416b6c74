import assert from "node:assert/strict";
import { test } from "node:test";
import {
  encodeFrame,
  FRAME,
  FrameDecoder,
  jsonObject,
  jsonPayload,
  MAX_PAYLOAD_BYTES,
  ProtocolError,
  windowCredit,
} from "./frames.ts";

interface Seen {
  type: number;
  stream: number;
  payload: Buffer;
}

const bytesOf = (type: number, stream: number, payload?: Uint8Array): Buffer =>
  Buffer.concat(encodeFrame(type, stream, payload));

function decodeAll(chunks: Buffer[]): { frames: Seen[]; decoder: FrameDecoder } {
  const decoder = new FrameDecoder();
  const frames: Seen[] = [];
  for (const chunk of chunks)
    decoder.push(chunk, (type, stream, payload) => {
      frames.push({ type, stream, payload: Buffer.from(payload) });
      return true;
    });
  return { frames, decoder };
}

/** Numbers that look random and are the same in every run (xorshift32). */
function sequence(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

test("every type and the edges of length and stream come back as they went", () => {
  for (const type of Object.values(FRAME))
    for (const stream of [0, 1, 0xffff_ffff])
      for (const length of [0, 1, 4096, 4097, MAX_PAYLOAD_BYTES]) {
        const payload = Buffer.alloc(length, type);
        const { frames, decoder } = decodeAll([bytesOf(type, stream, payload)]);
        assert.deepEqual(frames, [{ type, stream, payload }]);
        assert.equal(decoder.partial, false);
      }
});

test("a frame's bytes are those of the specification", () => {
  assert.equal(
    bytesOf(FRAME.HEAD, 0x01020304, Buffer.from("ab")).toString("hex"),
    "02000000" + "04030201" + "12" + "000000" + "6162",
  );
});

test("any split of a run of frames gives the same frames", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const below = sequence(seed * 7919);
    const types = Object.values(FRAME);
    const sent: Seen[] = Array.from({ length: 1 + below(12) }, () => ({
      type: types[below(types.length)] as number,
      stream: below(5),
      payload: Buffer.alloc(below(4) === 0 ? below(70_000) : below(40), below(256)),
    }));
    const whole = Buffer.concat(sent.map((f) => bytesOf(f.type, f.stream, f.payload)));
    const chunks: Buffer[] = [];
    for (let at = 0; at < whole.length; ) {
      const size = 1 + below(below(3) === 0 ? 5 : 30_000);
      chunks.push(whole.subarray(at, at + size));
      at += size;
    }
    const { frames, decoder } = decodeAll(chunks);
    assert.deepEqual(frames, sent, `seed ${seed}`);
    assert.equal(decoder.partial, false);
  }
});

test("one byte at a time is decoded, and every cut-off is seen as partial", () => {
  const whole = bytesOf(FRAME.DATA, 7, Buffer.from("hello"));
  for (let length = 1; length < whole.length; length++) {
    const { frames, decoder } = decodeAll([...whole.subarray(0, length)].map((b) => Buffer.of(b)));
    assert.equal(frames.length, 0);
    assert.equal(decoder.partial, true, `after ${length} bytes`);
  }
});

const header = (length: number, type: number, reserved: number[] = [0, 0, 0]): Buffer => {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32LE(length, 0);
  bytes[8] = type;
  bytes.set(reserved, 9);
  return bytes;
};

for (const [title, bytes, reason] of [
  ["a length one over the limit", header(MAX_PAYLOAD_BYTES + 1, FRAME.DATA), /longer than 256 KiB/],
  ["the largest length", header(0xffff_ffff, FRAME.DATA), /longer than 256 KiB/],
  ["a reserved byte (first)", header(0, FRAME.DATA, [1, 0, 0]), /reserved/],
  ["a reserved byte (last)", header(0, FRAME.DATA, [0, 0, 0x80]), /reserved/],
  ["type 0", header(0, 0), /unknown/],
  ["an unknown type", header(0, 0x7f), /unknown/],
  ["an HTTP request", Buffer.from("GET / HTTP/1.1\r\n\r\n"), /longer than 256 KiB/],
] as const)
  test(`${title} is a protocol error, in one piece and byte by byte`, () => {
    for (const chunks of [[bytes], [...bytes].map((byte) => Buffer.of(byte))])
      assert.throws(() => decodeAll(chunks), { name: "ProtocolError", message: reason });
  });

test("bytes that are no frames never do anything but throw a protocol error", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const below = sequence(seed * 104_729);
    const bytes = Buffer.from(Array.from({ length: below(200) }, () => below(256)));
    try {
      decodeAll([bytes]);
    } catch (error) {
      assert.ok(error instanceof ProtocolError);
    }
  }
});

test("a sink that gives false hears no more", () => {
  const decoder = new FrameDecoder();
  let heard = 0;
  const frame = bytesOf(FRAME.CANCEL, 1);
  decoder.push(Buffer.concat([frame, frame, frame]), () => ++heard < 2);
  assert.equal(heard, 2);
});

test("a payload in one piece is a view, not a copy", () => {
  const chunk = bytesOf(FRAME.DATA, 1, Buffer.from("abc"));
  new FrameDecoder().push(chunk, (_type, _stream, payload) => {
    assert.equal(payload.buffer, chunk.buffer);
    return true;
  });
});

test("a large payload is written without a copy", () => {
  const payload = Buffer.alloc(65_536);
  const parts = encodeFrame(FRAME.DATA, 1, payload);
  assert.equal(parts.length, 2);
  assert.equal(parts[1]?.buffer, payload.buffer);
  assert.throws(() => encodeFrame(FRAME.DATA, 1, Buffer.alloc(MAX_PAYLOAD_BYTES + 1)), {
    name: "ProtocolError",
  });
});

test("JSON payloads are objects in UTF-8", () => {
  assert.deepEqual(jsonObject(jsonPayload({ a: "ä", b: [1] })), { a: "ä", b: [1] });
  for (const [text, reason] of [
    ["", /not JSON/],
    ["{", /not JSON/],
    ["[]", /not a JSON object/],
    ["null", /not a JSON object/],
    ["1", /not a JSON object/],
    ['"text"', /not a JSON object/],
  ] as const)
    assert.throws(() => jsonObject(Buffer.from(text)), { message: reason });
  assert.throws(() => jsonObject(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), {
    message: /not UTF-8/,
  });
  assert.throws(() => jsonPayload({ long: "x".repeat(MAX_PAYLOAD_BYTES) }), {
    name: "ProtocolError",
  });
});

test("WINDOW grants 1 byte or more, in exactly four", () => {
  assert.equal(windowCredit(Buffer.from([1, 0, 0, 0])), 1);
  for (const payload of [Buffer.alloc(0), Buffer.alloc(3), Buffer.alloc(4), Buffer.alloc(5, 1)])
    assert.throws(() => windowCredit(payload), { name: "ProtocolError" });
});
