"""The same kind of work as in ../node, in Python."""


# Made once: whoever only computes asks for no fresh memory.
ZEROES = bytes(400_000)
composite = bytearray(ZEROES)


def handler(event, context):
    return {"found": cpu()}


def cpu():
    """Computes: a sieve, floating point, and objects in a dictionary. Some 200 ms."""
    composite[:] = ZEROES
    primes = 0
    for at in range(2, len(composite)):
        if composite[at]:
            continue
        primes += 1
        composite[at * at :: at] = b"\1" * len(range(at * at, len(composite), at))
    orbit, x = 0, 0.3
    for _ in range(1_000_000):
        x = 3.9 * x * (1 - x)
        if x > 0.5:
            orbit += 1
    words = {}
    for turn in range(200_000):
        word = f"w{turn * 7919 % 1009}"
        words[word] = words.get(word, 0) + turn
    return [primes, orbit, len(words), words["w17"]]
