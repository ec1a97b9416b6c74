/** PNG of eight bits a colour, red, green and blue, without interlacing (W3C PNG, third edition): what thumbnails need of it. */
import { crc32, deflateSync, inflateSync } from "node:zlib";

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const BYTES = 3;

export function encodePng({ width, height, pixels }) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const stride = width * BYTES;
  const rows = Buffer.alloc((stride + 1) * height);
  for (let y = 0; y < height; y++) {
    // Filter "Up": what differs from the row above.
    rows[y * (stride + 1)] = 2;
    for (let x = 0; x < stride; x++)
      rows[y * (stride + 1) + 1 + x] =
        pixels[y * stride + x] - (y > 0 ? pixels[(y - 1) * stride + x] : 0);
  }
  return Buffer.concat([
    SIGNATURE,
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows)),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

/** Throws for what it does not know, and for what is damaged. */
export function decodePng(file) {
  if (!file.subarray(0, 8).equals(SIGNATURE)) throw new Error("This is no PNG");
  let width = 0;
  let height = 0;
  const parts = [];
  for (let at = 8; at < file.length; ) {
    const length = file.readUInt32BE(at);
    const type = file.toString("latin1", at + 4, at + 8);
    const data = file.subarray(at + 8, at + 8 + length);
    if (crc32(file.subarray(at + 4, at + 8 + length)) !== file.readUInt32BE(at + 8 + length))
      throw new Error("The PNG is damaged");
    if (type === "IHDR") {
      width = data.readUInt32BE(0);
      height = data.readUInt32BE(4);
      if (data[8] !== 8 || data[9] !== 2 || data[12] !== 0)
        throw new Error("This kind of PNG is not read");
    } else if (type === "IDAT") parts.push(data);
    at += 12 + length;
  }
  const stride = width * BYTES;
  const rows = inflateSync(Buffer.concat(parts));
  const pixels = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (stride + 1)];
    for (let x = 0; x < stride; x++) {
      const to = y * stride + x;
      const left = x >= BYTES ? pixels[to - BYTES] : 0;
      const up = y > 0 ? pixels[to - stride] : 0;
      const corner = x >= BYTES && y > 0 ? pixels[to - stride - BYTES] : 0;
      pixels[to] = rows[y * (stride + 1) + 1 + x] + predicted(filter, left, up, corner);
    }
  }
  return { width, height, pixels };
}

function predicted(filter, left, up, corner) {
  switch (filter) {
    case 0:
      return 0;
    case 1:
      return left;
    case 2:
      return up;
    case 3:
      return (left + up) >> 1;
    case 4: {
      const guess = left + up - corner;
      const [l, u, c] = [left, up, corner].map((value) => Math.abs(guess - value));
      return l <= u && l <= c ? left : u <= c ? up : corner;
    }
    default:
      throw new Error("The PNG is damaged");
  }
}

function chunk(type, data) {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(data.length, 0);
  head.write(type, 4, "latin1");
  const body = Buffer.concat([head, data]);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(body.subarray(4)));
  return Buffer.concat([body, sum]);
}
