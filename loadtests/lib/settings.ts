import type { Scenario, Settings } from "./plan.ts";

/** One service that is called. */
export interface Service {
  /** Told apart in samples. */
  label: string;
  url: string;
  key: string;
  /** For scenarios that make tenants. */
  adminKey: string | undefined;
}

/** What a run is told by its environment. */
export interface Given {
  settings: Settings;
  services: readonly Service[];
  /** What the names of all that the run makes begin with. */
  run: string;
  /** `./cloister load` reads what comes of each call from the log. */
  isRead: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };
/** k6 runs nothing for less. */
export const SHORTEST_MS = 1000;

/** A duration as people write it, ms; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const [, digits = "", unit = ""] = /^(\d{1,7}(?:\.\d{1,3})?)(ms|s|m)$/.exec(text) ?? [];
  const found = Number(digits) * (UNITS[unit] ?? Number.NaN);
  return digits === "" || Number.isNaN(found) ? undefined : Math.round(found);
}

/** Load goes to this machine only: it would be an attack on any other. */
export const isLoopback = (url: string): boolean =>
  /^http:\/\/(?:localhost|\[::1\]|127(?:\.\d{1,3}){3})(?::\d{1,5})?$/.test(url);

/** Reads a run's environment. Throws one sentence and a remedy. */
export function givenBy(env: Environment, scenario: Scenario): Given {
  const services = [service("a", env, "CLOISTER_"), service("b", env, "CLOISTER_AB_")];
  const [first, second] = services;
  if (!first) throw new Error("No service is named. Set CLOISTER_URL and CLOISTER_KEY.");
  return {
    settings: settingsOf(env, scenario),
    services: second ? [first, second] : [first],
    run: env.CLOISTER_LOAD_RUN ?? `load-${hex8()}`,
    isRead: env.CLOISTER_LOAD_RUN !== undefined,
  };
}

function service(label: string, env: Environment, prefix: string): Service | undefined {
  const url = env[`${prefix}URL`]?.replace(/\/+$/, "");
  const key = env[`${prefix}KEY`];
  if (url === undefined) return undefined;
  if (!isLoopback(url))
    throw new Error(
      `${url} is not an address of this machine, and load is sent to no other. Run k6 where the service runs, with http://127.0.0.1:<port>.`,
    );
  if (!key) throw new Error(`The key for ${url} is not known. Set ${prefix}KEY.`);
  return { label, url, key, adminKey: env[`${prefix}ADMIN_KEY`] };
}

function settingsOf(env: Environment, scenario: Scenario): Settings {
  const { durationMs, heeds, name } = scenario;
  const duration = env.CLOISTER_LOAD_DURATION;
  const found = duration === undefined ? durationMs : parseDuration(duration);
  if (found === undefined)
    throw new Error(`CLOISTER_LOAD_DURATION is ${duration}. Write it like 10s, 2500ms or 2m.`);
  const wrong = wrongDuration(scenario, found);
  if (wrong) throw new Error(`${wrong} Choose another CLOISTER_LOAD_DURATION.`);
  const settings: Settings = { durationMs: found };
  const given = {
    rate: env.CLOISTER_LOAD_RATE,
    clients: env.CLOISTER_LOAD_VUS,
    isolation: env.CLOISTER_LOAD_ISOLATION,
  };
  for (const [setting, value] of Object.entries(given)) {
    if (value !== undefined && !heeds.includes(setting as keyof typeof given))
      throw new Error(
        `${name} has no use for the setting ${setting}. It heeds ${heeds.join(", ")}.`,
      );
  }
  if (given.rate !== undefined) settings.rate = whole(given.rate, "CLOISTER_LOAD_RATE", 20_000);
  if (given.clients !== undefined)
    settings.clients = whole(given.clients, "CLOISTER_LOAD_VUS", 500);
  if (given.isolation !== undefined) {
    if (given.isolation !== "container" && given.isolation !== "microvm")
      throw new Error("CLOISTER_LOAD_ISOLATION is neither container nor microvm. Set it to one.");
    settings.isolation = given.isolation;
  }
  return settings;
}

/** Why a scenario cannot run for so long; undefined when it can. */
export function wrongDuration(scenario: Scenario, ms: number): string | undefined {
  const { name, shortestMs = SHORTEST_MS, longestMs } = scenario;
  if (ms < shortestMs) return `${name} runs for at least ${shortestMs / 1000} s.`;
  return ms > longestMs ? `${name} runs for at most ${longestMs / 1000} s.` : undefined;
}

function whole(text: string, name: string, most: number): number {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= most) return value;
  throw new Error(`${name} is ${text}. A whole number from 1 to ${most} is needed.`);
}

/** Names of two runs must differ, no more. */
const hex8 = (): string =>
  Math.floor(Math.random() * 2 ** 32)
    .toString(16)
    .padStart(8, "0");
