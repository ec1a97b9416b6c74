"""READY, and what follows a restore from a snapshot."""

import os
import sys
import time

from .wire import READY, json_frame

_ready = {}


def say_ready(wire, **renewed):
    """`renewed`: what a restored runner has to tell. How long the boot took is found out once: that costs a look at a file."""
    if not _ready:
        _ready.update(runner="python", holds=True, version=sys.version.split()[0], bootMs=_boot_ms())
    wire.send(json_frame(READY, 0, {**_ready, **renewed}))


def renew(restored):
    """After RESTORED: every clone needs randomness of its own. OpenSSL and tempfile see by the process id that this is another
    process."""
    random = sys.modules.get("random")
    if random:
        random.seed(f"{restored.get('seed')}{restored.get('pid')}{os.urandom(16).hex()}")
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random and hasattr(numpy_random, "seed"):
        numpy_random.seed(int.from_bytes(os.urandom(4), "little"))
    uuid = sys.modules.get("uuid")
    if uuid:
        # uuid1: node and clock sequence, which lie in every clone, leave the time alone to tell them apart. Python draws both anew where the C library is not asked.
        uuid._generate_time_safe = None
        uuid._node = uuid._random_getnode()
        uuid._last_timestamp = None


def since_ms(started):
    """Time since a reading of time.monotonic(), in ms."""
    return round((time.monotonic() - started) * 1000, 3)


def _boot_ms():
    """Time since the process was made, in ms; clock ticks since boot are field 22 of proc(5) stat."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        started = ticks / os.sysconf("SC_CLK_TCK")
        return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started) * 1000, 1)
    except (OSError, ValueError, IndexError):
        return 0.0
