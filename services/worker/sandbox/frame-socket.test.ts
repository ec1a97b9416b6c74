import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, test } from "node:test";
import { FRAME, FrameSocket } from "./frame-socket.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-frames-"));
after(() => rmSync(folder, { recursive: true }));
const open: { destroy(): void }[] = [];
afterEach(() => {
  for (const end of open.splice(0)) end.destroy();
});

/** A frame socket, the other end of its connection, and the frames it hears. */
async function pair() {
  const server = createServer();
  const path = join(folder, `${randomBytes(4).toString("hex")}.sock`);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const ours = connect({ path });
  const connected = new Promise((resolve) => ours.once("connect", resolve));
  const [theirs] = await Promise.all([accepted, connected]);
  server.close();
  const heard: string[] = [];
  const waiting = new Set<() => void>();
  const closed = Promise.withResolvers<Error | undefined>();
  const frames = new FrameSocket(ours, {
    frame: (type, stream, payload) => {
      heard.push(`${type}:${stream}:${payload.toString("latin1")}`);
      for (const wake of waiting) wake();
    },
    closed: (error) => closed.resolve(error),
  });
  open.push(frames, theirs);
  const until = async (count: number): Promise<string[]> => {
    while (heard.length < count)
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          waiting.delete(wake);
          resolve();
        };
        waiting.add(wake);
      });
    return heard;
  };
  return { frames, theirs, heard, until, closed: closed.promise };
}

function frame(type: number, stream: number, payload: string): Buffer {
  const body = Buffer.from(payload, "latin1");
  const header = Buffer.alloc(12);
  header.writeUInt32LE(body.length, 0);
  header.writeUInt32LE(stream, 4);
  header.writeUInt32LE(type, 8);
  return Buffer.concat([header, body]);
}

test("what comes before the mark is no frame, whatever it is, in any pieces", async () => {
  const mark = randomBytes(32);
  const garbage = [
    Buffer.alloc(0),
    frame(FRAME.READY, 0, "{}"),
    Buffer.alloc(12, 0xff),
    Buffer.concat([mark.subarray(0, 31), mark.subarray(0, 31), Buffer.from([mark[0] ?? 0])]),
    randomBytes(300_000),
    // A frame that has begun and claims what follows as its payload.
    frame(FRAME.LOG, 0, "x".repeat(1000)).subarray(0, 500),
  ];
  const good = frame(FRAME.LOG, 0, "after");
  for (const before of garbage)
    for (const piece of [1, 7, 33, 100_000]) {
      if (before.length / piece > 3000) continue;
      const { frames, theirs, until } = await pair();
      let marked = 0;
      frames.skipTo(mark, () => marked++);
      const all = Buffer.concat([before, mark, good]);
      for (let at = 0; at < all.length; at += piece) {
        if (!theirs.write(all.subarray(at, at + piece)))
          await new Promise((resolve) => theirs.once("drain", resolve));
      }
      assert.deepEqual(await until(1), [`${FRAME.LOG}:0:after`]);
      assert.equal(marked, 1);
    }
});

test("half a frame that was held, and the rest of a read, are skipped too", async () => {
  const mark = randomBytes(32);
  const { frames, theirs, until, heard } = await pair();
  theirs.write(frame(FRAME.LOG, 1, "first"));
  await until(1);
  theirs.write(
    Buffer.concat([frame(FRAME.LOG, 2, "second"), frame(FRAME.LOG, 3, "third").subarray(0, 14)]),
  );
  await until(2);
  frames.skipTo(mark, () => {});
  theirs.write(Buffer.concat([frame(FRAME.LOG, 4, "lost"), mark, frame(FRAME.LOG, 5, "kept")]));
  await until(3);
  assert.deepEqual(heard.slice(2), [`${FRAME.LOG}:5:kept`]);
});

test("asked for within a frame, the rest of that read is skipped", async () => {
  const mark = randomBytes(32);
  const { frames, theirs } = await pair();
  const heard: number[] = [];
  frames.handOver({
    frame: (_type, stream) => {
      heard.push(stream);
      if (stream === 1) frames.skipTo(mark, () => frames.handOver(last));
    },
    closed() {},
  });
  const done = Promise.withResolvers<number>();
  const last = { frame: (_type: number, stream: number) => done.resolve(stream), closed() {} };
  theirs.write(
    Buffer.concat([
      frame(FRAME.END, 1, "{}"),
      frame(FRAME.LOG, 2, "left behind"),
      Buffer.alloc(40, 0xff),
      mark,
      frame(FRAME.READY, 3, "{}"),
    ]),
  );
  assert.equal(await done.promise, 3);
  assert.deepEqual(heard, [1]);
});

test("a connection that closes before the mark is closed, and the mark never comes", async () => {
  const { frames, theirs, closed } = await pair();
  let marked = false;
  frames.skipTo(randomBytes(32), () => {
    marked = true;
  });
  theirs.end(randomBytes(1000));
  assert.equal(await closed, undefined);
  assert.equal(marked, false);
});

test("flush tells whether all that was sent has left", async () => {
  const { frames, theirs } = await pair();
  theirs.pause();
  frames.send(FRAME.DATA, 1, Buffer.from("x"));
  assert.equal(frames.flush(), true);
  for (let sent = 0; sent < 16 << 20; sent += 1 << 16)
    frames.send(FRAME.DATA, 1, Buffer.alloc(1 << 16));
  assert.equal(frames.flush(), false);
});
