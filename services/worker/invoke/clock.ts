/** Wall clock in ms with fractions, comparable between processes of one machine. */
export const wallMs = (): number => performance.timeOrigin + performance.now();

/** To whole µs, in ms. */
export const round = (ms: number): number => Math.round(ms * 1000) / 1000;

/** Time since a reading of performance.now(), in ms. */
export const sinceMs = (began: number): number => round(performance.now() - began);
