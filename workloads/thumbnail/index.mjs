import { createHash } from "node:crypto";
import { decodePng, encodePng } from "./png.mjs";

/** Width and height of the picture, pixels. */
const SIZES = { small: 256, medium: 1024, large: 3000 };
const THUMBNAIL = 128;

const pictures = new Map();

/** Reads a PNG, makes it small by averaging, writes a PNG. The picture itself is made once per sandbox and size. */
export const handler = async (event) => {
  const size = event.queryStringParameters?.size ?? event.size ?? "small";
  if (!Object.hasOwn(SIZES, size))
    return { statusCode: 400, body: "size is small, medium or large" };
  if (!pictures.has(size)) pictures.set(size, encodePng(pictureOf(SIZES[size])));
  const picture = decodePng(pictures.get(size));
  const small = shrunk(picture, THUMBNAIL);
  const again = decodePng(encodePng(small));
  return {
    from: [picture.width, picture.height],
    to: [again.width, again.height],
    sha256: createHash("sha256").update(again.pixels).digest("hex"),
  };
};

/** Rings and a gradient, three bytes a pixel. */
function pictureOf(edge) {
  const pixels = Buffer.alloc(edge * edge * 3);
  let at = 0;
  for (let y = 0; y < edge; y++)
    for (let x = 0; x < edge; x++) {
      const ring = ((x - edge / 2) * (x - edge / 2) + (y - edge / 2) * (y - edge / 2)) >> 5;
      pixels[at++] = (x * 255) / edge;
      pixels[at++] = (y * 255) / edge;
      pixels[at++] = ring & 255;
    }
  return { width: edge, height: edge, pixels };
}

/** Each pixel is the mean of those it stands for. */
function shrunk({ width, height, pixels }, edge) {
  const small = Buffer.alloc(edge * edge * 3);
  for (let y = 0; y < edge; y++) {
    const [top, bottom] = [Math.floor((y * height) / edge), Math.ceil(((y + 1) * height) / edge)];
    for (let x = 0; x < edge; x++) {
      const [left, right] = [Math.floor((x * width) / edge), Math.ceil(((x + 1) * width) / edge)];
      const sums = [0, 0, 0];
      for (let row = top; row < bottom; row++)
        for (let at = (row * width + left) * 3; at < (row * width + right) * 3; at += 3) {
          sums[0] += pixels[at];
          sums[1] += pixels[at + 1];
          sums[2] += pixels[at + 2];
        }
      const count = (bottom - top) * (right - left);
      for (const [part, sum] of sums.entries())
        small[(y * edge + x) * 3 + part] = Math.round(sum / count);
    }
  }
  return { width: edge, height: edge, pixels: small };
}
