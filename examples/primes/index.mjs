/** Work by name, so that two runs are comparable: primes below this number are counted. */
const SIZES = { small: 100_000, medium: 1_000_000, large: 10_000_000 };

export default {
  fetch(request) {
    const size = new URL(request.url).searchParams.get("size") ?? "small";
    if (!Object.hasOwn(SIZES, size))
      return Response.json({ error: "size is small, medium or large." }, { status: 400 });
    const below = SIZES[size];
    const began = performance.now();
    const primes = countPrimes(below);
    return Response.json({ size, below, primes, computeMs: performance.now() - began });
  },
};

/** The sieve of Eratosthenes over odd numbers: one byte for each. */
function countPrimes(below) {
  const composite = new Uint8Array(below >> 1);
  let primes = 1;
  for (let at = 1; at < composite.length; at++) {
    if (composite[at] === 1) continue;
    primes++;
    const prime = 2 * at + 1;
    // Smaller multiples have a smaller factor and are marked already.
    for (let odd = (prime * prime - 1) / 2; odd < composite.length; odd += prime)
      composite[odd] = 1;
  }
  return primes;
}
