import { type Logger, pino } from "pino";

export type { Logger } from "pino";

/** Anywhere in a log line, what looks like a key is cut to its public half. */
const KEY = /\bcl_([0-9a-v]{26})_[A-Za-z0-9_-]{43}/g;

export const redactKeys = (text: string): string => text.replace(KEY, "cl_$1_[secret]");

/** JSON lines on stderr. Errors go under `err`; what holds a secret is cut before it is written. */
export function createLog(service: string, level: string): Logger {
  return pino(
    {
      level,
      base: { service },
      redact: {
        paths: ["authorization", "*.authorization", "headers.cookie", "key", "adminKey", "token"],
        censor: "[secret]",
      },
      hooks: { streamWrite: redactKeys },
    },
    pino.destination({ fd: 2, sync: false }),
  );
}
