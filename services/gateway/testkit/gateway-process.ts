import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { createLog } from "#telemetry/log";
import { GatewayService, type GatewaySettings } from "../gateway-service.ts";

/** A gateway in a process of its own, which can be killed, and whose clock may be wrong. */
export interface GatewayProcess {
  url: string;
  process: ChildProcess;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
}

/** Starts one; `clockStepMs` is added to all it reads of the wall clock. Rejects when it ends before it serves. */
export async function startGatewayProcess(
  settings: GatewaySettings,
  clockStepMs = 0,
): Promise<GatewayProcess> {
  const child = spawn(
    process.execPath,
    [
      "--disable-warning=ExperimentalWarning",
      import.meta.filename,
      JSON.stringify({ settings, clockStepMs }),
    ],
    { stdio: ["ignore", "pipe", "inherit", "ipc"] },
  );
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout as Readable }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`The gateway ended with ${code}`)));
  });
  return {
    url,
    process: child,
    async kill() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

if (import.meta.main) {
  const { settings, clockStepMs } = JSON.parse(process.argv[2] ?? "") as {
    settings: GatewaySettings;
    clockStepMs: number;
  };
  const { now } = Date;
  Date.now = () => now() + clockStepMs;
  const gateway = new GatewayService(settings, createLog("gateway", "silent"));
  process.stdout.write(`${await gateway.start()}\n`);
  // Whoever started it may have been killed.
  process.once("disconnect", () => process.exit());
}
