import { createHash } from "node:crypto";
import { gunzipSync, gzipSync } from "node:zlib";

/** Lines of the text that is packed, some 50 bytes each. */
const SIZES = { small: 1000, medium: 40_000, large: 400_000 };

/** Packs a text and unpacks it again. */
export const handler = async (event) => {
  const size = event.queryStringParameters?.size ?? event.size ?? "small";
  if (!Object.hasOwn(SIZES, size))
    return { statusCode: 400, body: "size is small, medium or large" };
  const plain = Buffer.from(textOf(SIZES[size]), "latin1");
  const packed = gzipSync(plain, { level: 6 });
  const again = gunzipSync(packed);
  return {
    bytes: plain.length,
    // How small it gets depends a little on the library's version; that it gets smaller does not.
    packs: packed.length * 2 < plain.length,
    same: again.equals(plain),
    sha256: createHash("sha256").update(again).digest("hex"),
  };
};

function textOf(lines) {
  let text = "";
  for (let line = 0; line < lines; line++)
    text += `${line} GET /items/${(line * 7919) % 10_007}?page=${line % 13} 200 ${(line * 104_729) % 99_991}\n`;
  return text;
}
