"""READY, and what follows a restore from a snapshot."""

import os
import sys
import time

from .wire import READY, json_frame


def say_ready(wire):
    wire.send(json_frame(READY, 0, {"runner": "python", "version": sys.version.split()[0], "bootMs": _boot_ms()}))


def renew(wire, restored):
    """After RESTORED: every clone needs randomness of its own. OpenSSL and tempfile see by the process id that this is another
    process. Whoever restored it has not heard the first READY, so there is another."""
    random = sys.modules.get("random")
    if random:
        random.seed(f"{restored.get('seed')}{restored.get('pid')}{os.urandom(16).hex()}")
    say_ready(wire)


def _boot_ms():
    """Time since the process was made, in ms; clock ticks since boot are field 22 of proc(5) stat."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        started = ticks / os.sysconf("SC_CLK_TCK")
        return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started) * 1000, 1)
    except (OSError, ValueError, IndexError):
        return 0.0
