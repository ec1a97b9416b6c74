"""The same kind of work as in ../node, in Python."""

import time

# Made once: whoever only computes asks for no fresh memory.
ZEROES = bytes(20_000)
composite = bytearray(ZEROES)


def handler(event, context):
    """Computes for some 200 ms, in slices that few interruptions fall into."""
    slices_ms = []
    answer = None
    for _ in range(150):
        began = time.perf_counter()
        answer = compute()
        slices_ms.append((time.perf_counter() - began) * 1000)
    return {"answer": answer, "slicesMs": slices_ms}


def compute():
    """A sieve, floating point, and objects in a dictionary."""
    composite[:] = ZEROES
    primes = 0
    for at in range(2, len(composite)):
        if composite[at]:
            continue
        primes += 1
        composite[at * at :: at] = b"\1" * len(range(at * at, len(composite), at))
    orbit, x = 0, 0.3
    for _ in range(8_000):
        x = 3.9 * x * (1 - x)
        if x > 0.5:
            orbit += 1
    sums = {}
    for turn in range(1_000):
        key = turn * 7919 % 1009
        sums[key] = sums.get(key, 0) + turn
    return [primes, orbit, len(sums)]
