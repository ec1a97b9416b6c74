import { createHash } from "node:crypto";
import { mkdirSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { PROJECT_ROOT } from "#embedded/unprivileged";
import { Failure, messageOf } from "../failure.ts";

export const DEFAULT_DATA = "/var/lib/cloister";

/** The data folder the commands use: `--data`, else CLOISTER_DATA, else /var/lib/cloister. */
export const dataFolder = (option?: string): string =>
  resolve(option ?? process.env.CLOISTER_DATA ?? DEFAULT_DATA);

export const imagesFolder = (): string =>
  process.env.CLOISTER_IMAGES ?? join(PROJECT_ROOT, ".cloister/images");

/** Where everything of one instance lies. */
export interface Folders {
  data: string;
  /** 8 hex digits that name the instance in /run, in cgroups and in its lock. */
  id: string;
  run: string;
  logs: string;
  bundles: string;
  /** Records that wait for the database. */
  records: string;
  stateFile: string;
  credentialsFile: string;
  /** The keys of the first start. Kept apart because credentials.json is there only while the service is ready. */
  keysFile: string;
}

/** Makes the data folder if it is missing, because the id comes from its real path. */
export function foldersOf(option?: string): Folders {
  const wanted = dataFolder(option);
  let data: string;
  try {
    mkdirSync(wanted, { recursive: true, mode: 0o711 });
    data = realpathSync(wanted);
  } catch (error) {
    throw new Failure(
      `The data folder ${wanted} cannot be made: ${messageOf(error)}.`,
      "Name another one with --data.",
    );
  }
  const id = createHash("sha256").update(data).digest("hex").slice(0, 8);
  return {
    data,
    id,
    run: `/run/cloister/${id}`,
    logs: join(data, "logs"),
    bundles: join(data, "bundles"),
    records: join(data, "records"),
    stateFile: join(data, "up.json"),
    credentialsFile: join(data, "credentials.json"),
    keysFile: join(data, "keys.json"),
  };
}
