import { existsSync } from "node:fs";
import { Failure } from "../failure.ts";
import { attempt } from "../host/attempt.ts";
import { absent, type Finding, found } from "../host/finding.ts";
import { inPath } from "../host/in-path.ts";
import { buildK6, builtK6, findGo, PINNED_VERSION } from "./k6-build.ts";

/** A k6 that can run loadtests/scenarios. */
export interface K6 {
  path: string;
  version: string;
  /** Which of the ways it was found, for `doctor`. */
  how: "CLOISTER_K6" | "PATH" | "built";
}

/** Scripts are TypeScript that k6 strips itself, and options are read as k6 1 names them. */
const MAJOR = "1";

/** The version that a program says it is; undefined when it is no k6. */
async function versionOf(path: string): Promise<string | undefined> {
  const { text } = await attempt(path, ["version"]);
  return /\bv(\d+\.\d+\.\d+\S*)/.exec(text)?.[1];
}

const isSuitable = (version: string): boolean => version.split(".")[0] === MAJOR;

/** What is there without a build: CLOISTER_K6, then PATH, then what an earlier run has built. `passedOver` is a k6 of PATH that cannot be used. */
export async function findK6(): Promise<{ k6?: K6; passedOver?: string }> {
  const named = process.env.CLOISTER_K6;
  if (named !== undefined) {
    const version = await versionOf(named);
    if (version !== undefined && isSuitable(version))
      return { k6: { path: named, version, how: "CLOISTER_K6" } };
    throw new Failure(
      version === undefined
        ? `CLOISTER_K6 names ${named}, which does not run as k6.`
        : `CLOISTER_K6 names ${named}, which is k6 ${version}; the scenarios need k6 ${MAJOR}.`,
      `Name a k6 ${MAJOR} there, or unset it: ./cloister load then builds k6 ${PINNED_VERSION} with Go.`,
    );
  }
  const path = inPath("k6");
  const version = path === undefined ? undefined : await versionOf(path);
  if (path !== undefined && version !== undefined && isSuitable(version))
    return { k6: { path, version, how: "PATH" } };
  const passed =
    path === undefined
      ? {}
      : { passedOver: `${path} is ${version === undefined ? "no k6 that runs" : `k6 ${version}`}` };
  const built = builtK6();
  if (existsSync(built))
    return { k6: { path: built, version: PINNED_VERSION, how: "built" }, ...passed };
  return passed;
}

export interface RequireK6 {
  /** Ends a build; without one it ends with this process. */
  signal?: AbortSignal;
  /** Of the build, as nice(1) counts. */
  niceness?: number;
  tell(sentence: string): void;
}

/** The k6 that runs scenarios; built once when none is there. */
export async function requireK6({ signal, niceness, tell }: RequireK6): Promise<K6> {
  const { k6, passedOver } = await findK6();
  if (k6) return k6;
  if (passedOver)
    tell(`${passedOver}; the scenarios need k6 ${MAJOR}, so another one is built beside it.`);
  const path = await buildK6({
    tell,
    ...(signal ? { signal } : {}),
    ...(niceness === undefined ? {} : { niceness }),
  });
  return { path, version: PINNED_VERSION, how: "built" };
}

/** The line of `doctor`. */
export async function k6Finding(): Promise<Finding> {
  const name = "k6";
  let remedy = "Install Go 1.25 or newer, or k6 1; load tests only need it.";
  try {
    const { k6, passedOver } = await findK6();
    if (k6) {
      const how = k6.how === "built" ? "built by ./cloister load" : `${k6.path} by ${k6.how}`;
      return found(name, `v${k6.version}, ${how}`);
    }
    const why = passedOver ?? "not there";
    if (findGo() === undefined) return absent(name, `${why}, nor is Go to build it`, remedy);
    remedy = `The first ./cloister load builds v${PINNED_VERSION} with Go, once.`;
    return absent(name, `${why}, not built yet`, remedy);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return absent(name, error.message, error.remedy);
  }
}
