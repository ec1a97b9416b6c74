import { createHash } from "node:crypto";
import type { z } from "zod";
import { lookAtBundle } from "#bundles/look-at-bundle";
import { type FunctionConfig, functionConfigSchema, LIMITS } from "#contracts/function";
import type { Database } from "#db/database";
import { type FunctionSummary, publishVersion } from "#db/functions";
import { CloisterError } from "#errors/catalogue";
import { refuseBeyondQuota } from "../quota/deploy-limits.ts";
import { publishRequestSchema } from "../routes/function-schemas.ts";
import { readMultipart } from "./multipart.ts";
import { packFiles } from "./pack-files.ts";
import { readJsonBody } from "./read-json-body.ts";

/** A JSON body is parsed in one go, while nobody else is served. */
const MAX_JSON_BYTES = 24 * 1024 * 1024;
/** Each may hold a bundle in memory a few times over. */
const MAX_AT_ONCE = 8;

let underWay = 0;

/** Reads, checks and stores what a deploy sends. Nothing is stored of a request that is refused. */
export async function publish(
  db: Database,
  tenantId: string,
  request: Request,
): Promise<FunctionSummary> {
  if (underWay >= MAX_AT_ONCE)
    throw new CloisterError("capacity_exhausted", "Too many functions are being published");
  underWay++;
  try {
    const { config, bundle } = await readUpload(request);
    // A function that counts on a network would find none: better told now than found out then.
    if (config.egress !== "none" && config.egress.length > 0)
      throw new CloisterError(
        "not_implemented",
        "Functions have no network in this version, so egress can only be none",
      );
    if (bundle.length > LIMITS.bundleBytes)
      throw new CloisterError(
        "body_too_large",
        `The bundle is ${bundle.length} bytes; at most ${LIMITS.bundleBytes} are allowed`,
      );
    const maxFunctions = await refuseBeyondQuota(db, tenantId, config, bundle.length);
    const { unpackedBytes, findings } = await lookAtBundle(bundle, config);
    const digest = createHash("sha256").update(bundle).digest("hex");
    const stored = { digest, content: bundle, unpackedBytes };
    return await publishVersion(db, tenantId, config, stored, { findings, maxFunctions });
  } finally {
    underWay--;
  }
}

async function readUpload(request: Request): Promise<{ config: FunctionConfig; bundle: Buffer }> {
  const type = request.headers.get("content-type") ?? "";
  if (/^multipart\/form-data\s*;/i.test(type)) {
    const upload = await readMultipart(type, request.body);
    return {
      config: checked(functionConfigSchema, upload.config, "config"),
      bundle: upload.bundle,
    };
  }
  if (!/^application\/json\s*(?:;|$)/i.test(type))
    throw new CloisterError(
      "unsupported_media_type",
      "A function is published as multipart/form-data or application/json",
    );
  const body = await readJsonBody(request.body, MAX_JSON_BYTES);
  const { files, ...config } = checked(publishRequestSchema, body, "");
  // Only a binary is run as a program; whatever else has nothing to gain by the right to be.
  const bundle = await packFiles(files, config.runtime === "binary" ? 0o755 : 0o644);
  return { config, bundle };
}

/** The parsed value; throws `bad_request` that names each field that is wrong. */
function checked<T extends z.ZodType>(schema: T, value: unknown, prefix: string): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, 5).map(({ path, message }) => {
    const field = [prefix, ...path.map(String)].filter((part) => part !== "").join(".");
    return field === "" ? message : `${field.slice(0, 200)}: ${message}`;
  });
  throw new CloisterError("bad_request", issues.join("; ").slice(0, 2000));
}
