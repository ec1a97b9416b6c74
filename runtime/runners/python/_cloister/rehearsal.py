"""Runs what every call runs, from bytes to bytes and without a function: frames come out of a pipe, are answered by a built-in
function of the same kind, and go to nowhere. So a clone finds its memory in use and its code specialised.
"""

import os

from .loading import Target
from .logs import Logs
from .wire import DATA, END, INVOKE, RESTORED, Wire, frame, json_frame

_INIT = {"function": "rehearsal", "version": 0, "memoryMb": 0}
_RESTORED = {"seed": "", "nowMs": 0, "pid": 0}
_REQUEST = {
    "id": "inv_0",
    "method": "POST",
    "url": "http://localhost/path?name=value",
    "path": "/path?name=value",
    "headers": [["host", "localhost"], ["content-type", "application/json"]],
    "deadlineMs": 1000,
    "hasBody": True,
}


def _handler(event, _context):
    return {"echo": event}


async def _async_handler(event, context):
    return _handler(event, context)


def _wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]


async def _asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": message.get("body", b"")})


def rehearse(make_engine, target, turns, restores=True):
    """`make_engine(wire, logs, init, target)` gives an engine of the class that will serve. Yields it each time that it has something to serve.
    `restores`: each turn begins as in a process that was restored."""
    if turns <= 0:
        return
    call = {"handler": _async_handler if target.is_async else _handler, "asgi": _asgi, "wsgi": _wsgi}[target.kind]
    reading, writing = os.pipe()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        wire = Wire(reading, nowhere)
        engine = make_engine(wire, Logs(wire), _INIT, Target(call, target.kind, target.is_async, 2))
        for turn in range(1, turns + 1):
            os.write(writing, _frames(turn, restores))
            engine.frames(wire.read())
            yield engine
    finally:
        for fd in (reading, writing, nowhere):
            os.close(fd)


def _frames(turn, restores):
    kind = "event" if turn % 2 else "http"
    # As it will be: what a restored process hears, and the call right behind it.
    restored = json_frame(RESTORED, 0, _RESTORED) if restores else b""
    invoke = json_frame(INVOKE, turn, {**_REQUEST, "kind": kind})
    return restored + invoke + frame(DATA, turn, b'{"name":"value"}') + frame(END, turn)
