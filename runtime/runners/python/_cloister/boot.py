"""From process start to serving."""

import fcntl
import os
import select
import sys
import threading
import time

from . import faults
from .loading import load
from .logs import Logs, capture
from .renewal import renew, say_ready, since_ms
from .wire import (
    ERROR,
    EXIT_PROTOCOL,
    INIT,
    INIT_DONE,
    INVOKE,
    RESTORED,
    SOCKET_FD,
    ProtocolError,
    Wire,
    json_frame,
    parse_json,
)

# Loaded one by one while nothing else is to do, small ones first: what most functions import, and all that async ones need.
_PRELOADED = (
    "importlib.util", "_cloister.threaded", "urllib.parse", "traceback", "inspect", "queue", "logging", "datetime",
    "selectors", "socket", "concurrent.futures", "subprocess", "ssl", "asyncio", "_cloister.evented",
)  # fmt: skip


def main():
    """Serves the function of one INIT until the socket closes. Never returns."""
    try:
        fcntl.fcntl(SOCKET_FD, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    except OSError:
        os.write(2, b"File descriptor 3 is not open: this program is started by sandboxd.\n")
        os._exit(64)
    # Of libc alone, which has read it (runtime/images).
    os.environ.pop("MALLOC_ARENA_MAX", None)
    wire = Wire()
    logs = Logs(wire)
    capture(logs)
    os.register_at_fork(after_in_child=lambda: _leave_socket(wire))
    say_ready(wire)
    try:
        init, early = _await_init(wire)
        engine = _load(wire, logs, init)
        engine.frames(early)
    except ProtocolError as error:
        os.write(2, f"[cloister] protocol error: {error}\n".encode("utf-8", "replace"))
        os._exit(EXIT_PROTOCOL)
    engine.run()


def _leave_socket(wire):
    """In a forked child: the socket is not its own, and what it prints goes to plain descriptors."""
    try:
        os.close(SOCKET_FD)
    except OSError:
        pass  # An exec has closed it already.
    wire.forget_senders()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def _await_init(wire):
    """The INIT payload and the frames that came with it. Uses the time until then to load modules."""
    poller = select.poll()
    poller.register(wire.fd, select.POLLIN)
    for name in _PRELOADED:
        if poller.poll(0):
            break
        __import__(name)
    while True:
        frames = wire.read()
        if frames is None:
            os._exit(0)
        while frames and frames[0][0] == RESTORED:
            started = time.monotonic()
            renew(parse_json(frames.pop(0)[2], "RESTORED"))
            # Whoever restored it has not heard the first one.
            say_ready(wire, renewMs=since_ms(started))
        if not frames:
            continue
        kind, stream, payload = frames[0]
        if kind != INIT or stream != 0:
            raise ProtocolError(f"frame type 0x{kind:02x} before INIT")
        return _checked_init(payload), frames[1:]


def _checked_init(payload):
    init = parse_json(payload, "INIT")
    entry, env = init.get("entry"), init.get("env", {})
    texts = [init.get("function"), init.get("root"), "" if entry is None else entry]
    if not all(isinstance(text, str) for text in texts) or not isinstance(env, dict):
        raise ProtocolError("INIT lacks function, root, entry or env")
    if not isinstance(init.get("version"), (int, str)):
        raise ProtocolError("INIT lacks version")
    snapshot = init.get("snapshot")
    if snapshot is not None and not (isinstance(snapshot, dict) and isinstance(snapshot.get("warmTurns"), int)):
        raise ProtocolError("INIT's snapshot lacks warmTurns")
    return init


def _load(wire, logs, init):
    """Loads the function, says INIT_DONE and gives the engine that serves it."""
    started = time.monotonic()
    try:
        engine = _make_engine(wire, logs, init)
        took_ms = since_ms(started)
        if init.get("snapshot"):
            engine.settle(init["snapshot"]["warmTurns"])
    except BaseException as error:
        logs.outside.finish()
        fault = faults.describe(error, "function_init_error")
        wire.send(json_frame(INIT_DONE, 0, {"ok": False, "error": fault}))
        return _RefusingEngine(wire, fault)
    logs.outside.finish()
    wire.send(json_frame(INIT_DONE, 0, {"ok": True, "initMs": took_ms}))
    return engine


def _make_engine(wire, logs, init):
    _watch_hangup(wire.fd)
    os.environ.update(_checked_env(init))
    time.tzset()
    os.chdir(init["root"])
    _add_site_builtins()
    target = load(init["root"], init.get("entry"))
    if not target.is_async:
        from .threaded import ThreadedEngine

        return ThreadedEngine(wire, logs, init, target)
    from .evented import EventedEngine

    return EventedEngine(wire, logs, init, target)


class _RefusingEngine:
    """Answers every invocation of a function that could not be loaded with the reason."""

    def __init__(self, wire, fault):
        self._wire = wire
        self._fault = fault

    def frames(self, frames):
        for kind, stream, _payload in frames:
            if kind == INVOKE:
                self._wire.send(json_frame(ERROR, stream, self._fault))

    def run(self):
        while (frames := self._wire.read()) is not None:
            self.frames(frames)
        os._exit(0)


def _watch_hangup(fd):
    """Ends the process when the socket closes, even while user code keeps the main thread busy."""

    def watch():
        poller = select.poll()
        poller.register(fd, select.POLLRDHUP)
        poller.poll()
        os._exit(0)

    threading.Thread(target=watch, name="cloister-hangup", daemon=True).start()


def _checked_env(init):
    for name, value in init.get("env", {}).items():
        if not name or "=" in name or "\0" in f"{name}{value}" or not isinstance(value, str):
            raise faults.LoadFailed(f"The environment variable {name!r} cannot be set. Rename it.")
    own = {"CLOISTER_FUNCTION_NAME": init["function"], "CLOISTER_FUNCTION_VERSION": str(init["version"])}
    return {**own, **init.get("env", {})}


def _add_site_builtins():
    """What the site module, which is not run, would give: exit, quit and help."""
    import _sitebuiltins
    import builtins

    builtins.exit = _sitebuiltins.Quitter("exit", "")
    builtins.quit = _sitebuiltins.Quitter("quit", "")
    builtins.help = _sitebuiltins._Helper()
