import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { Header, Pax } from "tar";
import { CloisterError } from "#errors/catalogue";

const BLOCK_BYTES = 512;
const compress = promisify(gzip);

/** Text, or bytes in base64. */
export type FileContent = string | { base64: string };

/**
 * Packs files that came in JSON as a tar.gz. The same files give the same bytes. Names are not looked at: the bundle rules judge
 * what comes out, as they do with any other bundle. Rejects with `bad_bundle` for content that is no base64.
 */
export async function packFiles(
  files: Readonly<Record<string, FileContent>>,
  mode: number,
): Promise<Buffer> {
  const blocks: Buffer[] = [];
  for (const path of Object.keys(files).sort()) {
    const body = contentOf(path, files[path] as FileContent);
    const data = { path, mode, size: body.length, type: "File" as const, mtime: new Date(0) };
    const block = Buffer.alloc(BLOCK_BYTES);
    const header = new Header(data);
    // A name that fits no header goes before it in one of its own (POSIX.1-2001, pax).
    if (header.encode(block, 0)) blocks.push(new Pax({ path, size: body.length }).encode());
    blocks.push(block, body, Buffer.alloc(-body.length & (BLOCK_BYTES - 1)));
  }
  blocks.push(Buffer.alloc(2 * BLOCK_BYTES));
  return compress(Buffer.concat(blocks));
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

function contentOf(path: string, content: FileContent): Buffer {
  if (typeof content === "string") return Buffer.from(content);
  const { base64 } = content;
  if (base64.length % 4 !== 0 || !BASE64.test(base64))
    throw new CloisterError(
      "bad_bundle",
      `The file ${JSON.stringify(path.slice(0, 200))} is no base64`,
    );
  return Buffer.from(base64, "base64");
}
