/** Times of one mode, ms; a failure has none. */
export interface Distribution {
  n: number;
  failures: number;
  min_ms: number | null;
  p50_ms: number | null;
  p90_ms: number | null;
  p99_ms: number | null;
  max_ms: number | null;
}

/** Nearest rank: every figure shown is one that was measured. Null when nothing was. */
export function distribution(times: readonly number[], failures: number): Distribution {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (part: number): number | null => {
    const value = sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)];
    return value === undefined ? null : Math.round(value * 1000) / 1000;
  };
  return {
    n: times.length + failures,
    failures,
    min_ms: at(0),
    p50_ms: at(0.5),
    p90_ms: at(0.9),
    p99_ms: at(0.99),
    max_ms: at(1),
  };
}
