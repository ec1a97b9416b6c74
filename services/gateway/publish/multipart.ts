import { Readable } from "node:stream";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";
import { Busboy, type BusboyInstance } from "@fastify/busboy";
import { LIMITS } from "#contracts/function";
import { CloisterError } from "#errors/catalogue";

export interface UploadedFunction {
  /** What `config` held, unchecked. */
  config: unknown;
  /** tar.gz, unchecked. */
  bundle: Buffer;
}

/** `config` holds an env of at most 32 KiB and little else. */
const MAX_CONFIG_BYTES = 128 * 1024;
/** A whole upload must arrive within this, ms. */
const UPLOAD_MS = 300_000;

/**
 * Reads a multipart/form-data body with the parts `config` (JSON) and `bundle` (tar.gz), each once and nothing else. Rejects with
 * `bad_request` for any other form and with `body_too_large` as soon as the bundle is.
 */
export async function readMultipart(
  contentType: string,
  body: ReadableStream<Uint8Array> | null,
): Promise<UploadedFunction> {
  if (!body) throw new CloisterError("bad_request", "The request has no body");
  let parser: BusboyInstance;
  try {
    parser = new Busboy({
      headers: { "content-type": contentType },
      limits: {
        fieldNameSize: 100,
        fieldSize: MAX_CONFIG_BYTES,
        fields: 1,
        files: 2,
        parts: 3,
        fileSize: LIMITS.bundleBytes,
        headerPairs: 20,
        headerSize: 8192,
      },
    });
  } catch (error) {
    throw malformed(error);
  }
  const source = Readable.fromWeb(body as NodeReadableStream);
  const timeout = AbortSignal.timeout(UPLOAD_MS);
  try {
    return await new Promise<UploadedFunction>((resolve, reject) => {
      const parts: Partial<Record<string, Buffer>> = {};
      const take = (name: string, content: Buffer): void => {
        if (parts[name]) reject(new CloisterError("bad_request", `The part ${name} comes twice`));
        parts[name] = content;
      };
      parser.on("field", (name, value, _nameCut, valueCut) => {
        if (name !== "config") reject(unexpected(name));
        else if (valueCut) reject(configTooLarge());
        else take("config", Buffer.from(value));
      });
      parser.on("file", (name, stream) => {
        if (name !== "config" && name !== "bundle") {
          stream.resume();
          reject(unexpected(name));
          return;
        }
        const chunks: Buffer[] = [];
        let bytes = 0;
        stream.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (name === "config" && bytes > MAX_CONFIG_BYTES) reject(configTooLarge());
          else chunks.push(chunk);
        });
        stream.on("limit", () =>
          reject(
            new CloisterError(
              "body_too_large",
              `The bundle is larger than ${LIMITS.bundleBytes} bytes`,
            ),
          ),
        );
        stream.on("error", (error) => reject(malformed(error)));
        stream.on("end", () => take(name, Buffer.concat(chunks)));
      });
      for (const limit of ["partsLimit", "filesLimit", "fieldsLimit"] as const)
        parser.on(limit, () =>
          reject(
            new CloisterError("bad_request", "The form has more parts than config and bundle"),
          ),
        );
      parser.on("error", (error) => reject(malformed(error)));
      parser.on("finish", () => {
        const { config, bundle } = parts;
        if (!config || !bundle)
          reject(
            new CloisterError("bad_request", `The part ${config ? "bundle" : "config"} is missing`),
          );
        else {
          try {
            resolve({ config: JSON.parse(config.toString("utf8")), bundle });
          } catch {
            reject(new CloisterError("bad_request", "The part config is not JSON"));
          }
        }
      });
      source.on("error", (error) => reject(malformed(error)));
      timeout.addEventListener("abort", () =>
        reject(new CloisterError("request_timeout", "The upload took too long")),
      );
      source.pipe(parser);
    });
  } finally {
    source.unpipe(parser);
    parser.removeAllListeners();
    // Left-over events of a form that was given up must not be unhandled.
    parser.on("error", () => {});
    source.on("error", () => {});
    source.resume();
  }
}

const malformed = (error: unknown): CloisterError =>
  new CloisterError(
    "bad_request",
    `The body is no sound multipart/form-data: ${error instanceof Error ? error.message : error}`,
  );

const unexpected = (name: string): CloisterError =>
  new CloisterError(
    "bad_request",
    `The form has the part ${JSON.stringify(String(name).slice(0, 100))}; config and bundle are expected`,
  );

const configTooLarge = (): CloisterError =>
  new CloisterError("body_too_large", `The part config is larger than ${MAX_CONFIG_BYTES} bytes`);
