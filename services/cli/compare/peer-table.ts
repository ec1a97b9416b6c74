import { betweenWords, type ShownTable } from "#comparison/tables";
import { figure } from "#report/markup";
import type { PeerReport } from "./peers.ts";

/** Sandboxes of the peers, without HTTP and queue. */
export function peerTable(peers: readonly PeerReport[]): ShownTable {
  const titles = ["n", "failed", "p50 ms", "95 % of p50", "p90 ms", "p99 ms"];
  return {
    columns: [
      { title: "first answer, sandbox alone" },
      ...titles.map((title) => ({ title, right: true })),
    ],
    rows: peers.map((one) =>
      one.available
        ? [
            one.peer,
            String(one.n),
            String(one.failures),
            figure(one.p50_ms),
            betweenWords(one.p50_interval),
            figure(one.p90_ms),
            figure(one.p99_ms),
          ]
        : [one.peer, ...titles.map(() => "-")],
    ),
  };
}

/** What a reader must know of the peers beside the numbers: one sentence each. */
export const peerRemarks = (peers: readonly PeerReport[]): string[] =>
  peers.flatMap(({ peer, available, reason, remark, first_failure }) => [
    ...(available ? [] : [`${peer} cannot be had: ${reason}.`]),
    ...(remark === undefined ? [] : [`${peer}: ${remark}.`]),
    ...(first_failure === undefined ? [] : [`${peer}, first failure: ${first_failure}.`]),
  ]);
