import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { type FunctionConfig, functionConfigSchema } from "#contracts/function";
import { type Distribution, distribution, type Interval, medianInterval } from "#report/statistics";
import type { WholeRequest } from "../../worker/sandbox/index.ts";
import { layGround } from "../bench/ground.ts";
import { coldMode } from "../bench/own-modes.ts";
import { type Ability, PEER_ABILITIES, type Peer } from "../bench/peer-abilities.ts";
import { runRounds } from "../bench/rounds.ts";
import { Failure } from "../failure.ts";
import { type Api, segment } from "../http/api.ts";
import { foldersOf } from "../instance/folders.ts";

export const PEERS = Object.keys(PEER_ABILITIES) as Peer[];

/** Sandboxes of others, and Cloister's own cold ones in the same rounds, from the request for a sandbox to its first answer. */
export interface PeerReport extends Distribution {
  peer: string;
  available: boolean;
  reason?: string;
  /** What a reader must know of it here beside its numbers. */
  remark?: string;
  p50_interval: Interval | null;
  first_failure?: string;
  times_ms: number[];
}

const versionsSchema = z.looseObject({
  versions: z.array(
    z.looseObject({ version: z.number(), digest: z.string(), config: functionConfigSchema }),
  ),
});

export interface PeerRounds {
  api: Api;
  /** The service's data folder, where its bundles are unpacked. */
  dataDir: string | undefined;
  name: string;
  version: number;
  request: WholeRequest;
  n: number;
  peers: readonly Peer[];
  signal: AbortSignal;
  onRound(done: number, of: number): void;
}

/** Runs the caller's own function in the sandboxes of others, on this machine, as root. Throws a Failure where it cannot be done at all. */
export async function measurePeers(options: PeerRounds): Promise<PeerReport[]> {
  const { name, version, peers, n, signal, onRound } = options;
  const unavailable: PeerReport[] = [];
  const able: Exclude<Ability, { lack: string }>[] = [];
  for (const peer of peers) {
    const ability: Ability = await PEER_ABILITIES[peer]();
    if ("lack" in ability) unavailable.push(absent(peer, ability.lack));
    else able.push(ability);
  }
  if (able.length === 0) return unavailable;
  const { digest, config } = await deployed(options.api, name, version);
  const folder = join(foldersOf(options.dataDir).bundles, digest);
  if (!existsSync(folder))
    throw new Failure(
      `The files of ${name}@${version} are not on this machine (${folder}).`,
      "Run this as root on the machine of the service, with its --data-dir, or leave out --peers.",
    );
  const question = {
    request: { ...options.request, timeoutMs: config.timeoutMs, memoryMb: config.memoryMb },
    isRight: (status: number) => status < 400,
  };
  const ground = await layGround({ image: config.runtime, name, folder, config, question });
  try {
    const own = existsSync("/dev/kvm") && config.runtime !== "binary" ? ["microvm"] : [];
    const modes = [
      ...able.map(({ make }) => make(ground)),
      ...(["container", ...own] as ("container" | "microvm")[]).map((kind) =>
        coldMode(ground, kind),
      ),
    ];
    const outcomes = await runRounds(modes, { rounds: n, signal, onRound });
    const measured = modes.map((mode, index): PeerReport => {
      const { times = [], failures = [] } = outcomes[index] ?? {};
      const [first] = failures;
      const remark = able[index]?.remark;
      return {
        peer: mode.name,
        available: true,
        ...distribution(times, failures.length),
        p50_interval: medianInterval(times),
        ...(remark === undefined ? {} : { remark }),
        ...(first === undefined ? {} : { first_failure: first }),
        times_ms: times.map((ms) => Math.round(ms * 1000) / 1000),
      };
    });
    return [...measured, ...unavailable];
  } finally {
    await ground.close();
  }
}

const absent = (peer: Peer, reason: string): PeerReport => ({
  peer,
  available: false,
  reason,
  ...distribution([], 0),
  p50_interval: null,
  times_ms: [],
});

async function deployed(
  api: Api,
  name: string,
  version: number,
): Promise<{ digest: string; config: FunctionConfig }> {
  const { versions } = await api.json(
    "GET",
    `/v1/functions/${segment(name)}/versions?limit=1000`,
    versionsSchema,
  );
  const found = versions.find((one) => one.version === version);
  if (!found)
    throw new Failure(`${name}@${version} is not there any more.`, "Compare another version.");
  return found;
}
