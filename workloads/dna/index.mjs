import { createHash } from "node:crypto";

/** Bases of the sequence. */
const SIZES = { small: 2000, medium: 100_000, large: 2_000_000 };
/** Points of the drawing at most: the rest would be thinner than its line. */
const MOST_POINTS = 2000;

/** Each base takes two steps of half a unit: A goes up and down, C down and up, T down, G up. */
const STEPS = { A: [1, -1], C: [-1, 1], T: [-1, -1], G: [1, 1] };

/** A sequence as a line, and that as a drawing. */
export const handler = async (event) => {
  const size = event.queryStringParameters?.size ?? event.size ?? "small";
  if (!Object.hasOwn(SIZES, size))
    return { statusCode: 400, body: "size is small, medium or large" };
  const sequence = sequenceOf(SIZES[size]);
  const heights = heightsOf(sequence);
  const svg = drawingOf(heights);
  const { low, high } = boundsOf(heights);
  return {
    bases: sequence.length,
    low,
    high,
    end: heights[heights.length - 1],
    svgBytes: svg.length,
    sha256: createHash("sha256").update(svg).digest("hex"),
  };
};

function sequenceOf(length) {
  const letters = [];
  let state = 7;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    letters.push("ACGT"[(state >> 16) & 3]);
  }
  return letters.join("");
}

function heightsOf(sequence) {
  const heights = new Int32Array(sequence.length * 2 + 1);
  let height = 0;
  let at = 1;
  for (const base of sequence)
    for (const step of STEPS[base]) {
      height += step;
      heights[at++] = height;
    }
  return heights;
}

function boundsOf(heights) {
  let low = 0;
  let high = 0;
  for (const height of heights) {
    if (height < low) low = height;
    if (height > high) high = height;
  }
  return { low, high };
}

function drawingOf(heights) {
  const { low, high } = boundsOf(heights);
  const every = Math.max(1, Math.ceil(heights.length / MOST_POINTS));
  const points = [];
  for (let at = 0; at < heights.length; at += every) points.push(`${at},${high - heights[at]}`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${heights.length} ${high - low}"><polyline fill="none" stroke="black" points="${points.join(" ")}"/></svg>`;
}
