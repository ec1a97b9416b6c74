"""ASGI apps, version 3: HTTP and lifespan."""

import asyncio

from .answers import checked_head
from .calls import end_frame
from .context import decoded_path
from .faults import BadResponse, LoadFailed

_VERSIONS = {"version": "3.0", "spec_version": "2.4"}


class Lifespan:
    """The app's lifespan: startup before the first request. There is no shutdown, a sandbox just ends."""

    def __init__(self, app, loop):
        self._app = app
        self._loop = loop
        self._started = loop.create_future()
        self._asked = False
        self.state = {}

    def startup(self):
        """Runs the loop until startup is over. LoadFailed if the app says it failed; an app without lifespan is fine."""
        task = self._loop.create_task(self._run())
        try:
            self._loop.run_until_complete(self._started)
        finally:
            # Kept: the app may wait in receive() as long as the process lives.
            self._task = task

    async def _run(self):
        scope = {"type": "lifespan", "asgi": _VERSIONS, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:
            # The specification: an app that raises before it answers does not support lifespan.
            if self._started.done():
                raise
        if not self._started.done():
            self._started.set_result(None)

    async def _receive(self):
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        return await self._loop.create_future()

    async def _send(self, message):
        if not message["type"].startswith("lifespan."):
            raise RuntimeError(f"{message['type']} in the lifespan scope: look at scope['type'].")
        if self._started.done():
            return
        if message["type"] == "lifespan.startup.complete":
            self._started.set_result(None)
        elif message["type"] == "lifespan.startup.failed":
            text = message.get("message") or "no message"
            self._started.set_exception(LoadFailed(f"The app's lifespan startup failed: {text}"))


async def serve(engine, call):
    """Runs the app for one call and sends its answer as it comes."""
    exchange = _Exchange(engine, call)
    await engine.target.call(_scope(engine, call), exchange.receive, exchange.send)
    exchange.finish()


class _Exchange:
    def __init__(self, engine, call):
        self._engine = engine
        self._call = call
        self._head = None
        self._body_given = False
        self._done = False

    async def receive(self):
        call = self._call
        while not (call.chunks or call.body_ended or call.cancelled or call.closed):
            await self._engine.wait(call)
        if not call.cancelled and not call.closed and not self._body_given:
            body = call.chunks.popleft() if call.chunks else b""
            if body:
                grant = call.consumed(len(body))
                if grant:
                    self._engine.wire.send(grant)
            self._body_given = call.body_ended and not call.chunks
            return {"type": "http.request", "body": body, "more_body": not self._body_given}
        while not (call.cancelled or call.closed):
            await self._engine.wait(call)
        return {"type": "http.disconnect"}

    async def send(self, message):
        kind = message["type"]
        if self._done:
            if self._call.cancelled:
                return
            raise RuntimeError(f"{kind} after the answer was complete.")
        if kind == "http.response.start":
            if self._head:
                raise RuntimeError("http.response.start was sent twice.")
            self._head = checked_head(message["status"], _text_headers(message.get("headers") or ()))
        elif kind == "http.response.body":
            await self._body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} is no message of an HTTP answer.")

    async def _body(self, body, more):
        engine, call = self._engine, self._call
        if self._head is None:
            raise RuntimeError("http.response.body came before http.response.start.")
        if not more:
            self._done = True
            if engine.answer_whole(call, *self._head, bytes(body)):
                engine.changed(call)
                return
        if not call.head_sent:
            engine.send_head(call, *self._head)
        await engine.send_body(call, body)
        if not more:
            engine.close(call, end_frame(call))
            engine.changed(call)

    def finish(self):
        """The app has returned: its answer must be whole."""
        if self._call.cancelled and not self._call.closed:
            raise asyncio.CancelledError
        if not self._done:
            raise BadResponse("The app returned without a complete answer.")


def _text_headers(headers):
    try:
        return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]
    except (TypeError, ValueError) as error:
        raise BadResponse(f"The app's headers are no pairs of bytes: {error}.") from None


def _scope(engine, call):
    path, _, query = call.path.partition("?")
    headers = [(name.encode("latin-1", "replace"), value.encode("utf-8")) for name, value in call.headers]
    by_name = dict(call.headers)
    scheme = by_name.get("x-forwarded-proto", "http")
    host, _, port = by_name.get("host", "localhost").partition(":")
    client = by_name.get("x-forwarded-for", "127.0.0.1").split(",")[0].strip()
    return {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": "1.1",
        "method": call.method,
        "scheme": scheme,
        "path": decoded_path(path),
        "raw_path": path.encode("ascii", "replace"),
        "query_string": query.encode("ascii", "replace"),
        "root_path": "",
        "headers": headers,
        "client": (client, 0),
        "server": (host, int(port) if port.isdecimal() else (443 if scheme == "https" else 80)),
        "state": dict(engine.lifespan.state),
        "extensions": {},
    }
