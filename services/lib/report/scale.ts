/** Maps values to pixels, with the values to mark. */
export interface Scale {
  at(value: number): number;
  ticks: number[];
}

/** From zero to at least `most`, evenly. */
export function linearScale(most: number, from: number, to: number): Scale {
  const step = niceStep((most > 0 && Number.isFinite(most) ? most : 1) / 5);
  const end = Math.max(step, Math.ceil(most / step - 1e-9) * step) || step;
  const ticks = Array.from({ length: Math.round(end / step) + 1 }, (_, n) => exact(n * step));
  return { at: (value) => from + (value / end) * (to - from), ticks };
}

/** Whole powers of ten around `least` and `most`, both above zero; marks 1, 2 and 5 where there is room. */
export function logScale(least: number, most: number, from: number, to: number): Scale {
  const low = Math.floor(Math.log10(least) + 1e-9);
  const high = Math.max(low + 1, Math.ceil(Math.log10(most) - 1e-9));
  const marks = high - low <= 3 ? [1, 2, 5] : [1];
  const ticks: number[] = [];
  for (let power = low; power <= high; power++)
    for (const mark of power === high ? [1] : marks) ticks.push(exact(mark * 10 ** power));
  const at = (value: number): number =>
    from + ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * (to - from);
  return { at, ticks };
}

/** 1, 2 or 5 times a power of ten, not below `value`. */
function niceStep(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const part = value / power;
  return (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10) * power;
}

/** Without the noise of binary fractions. */
const exact = (value: number): number => Number(value.toPrecision(12));
