"""The engine of async handlers and ASGI apps: frames and user code share one event loop on the main thread."""

import asyncio
import os
import time
from functools import partial

from . import answers, faults, lifecycle
from .asgi import Lifespan, serve as serve_asgi
from .calls import Engine, end_frame, head_frame
from .context import Context, function_url_event
from .logs import current_call
from .threaded import read_event
from .wire import DATA, EXIT_PROTOCOL, MAX_DATA_BYTES, ProtocolError, frame

# After a call of this length those that wait may have been called back.
_LONG_SECONDS = 0.01
_JSON = [["content-type", "application/json"]]


class EventedEngine(Engine):
    def __init__(self, wire, logs, init, target, loop=None):
        super().__init__(wire, logs, init, target)
        self.loop = loop or asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.lifespan = Lifespan(target.call, self.loop) if target.kind == "asgi" else None
        if self.lifespan:
            self.lifespan.startup()
            # Another app's startup would need the loop for itself.
            self.can_rehearse = False

    def run(self):
        """Serves until the socket closes. Called on the main thread; never returns."""
        self.loop.add_reader(self.wire.fd, self._readable)
        self.loop.run_forever()
        # User code stopped the loop: nothing could be served any more.
        os._exit(70)

    def another(self, wire, logs, init, target):
        return EventedEngine(wire, logs, init, target, self.loop)

    def turn(self):
        while self.calls:
            self.loop.run_until_complete(asyncio.sleep(0))

    def complete(self, awaitable):
        self.loop.run_until_complete(awaitable)

    def run_after_restore(self):
        self.after_restore_task = self.loop.create_task(self._after_restore())

    async def _after_restore(self):
        try:
            await lifecycle.run_async(self.after_restore, lifecycle.AFTER_RESTORE_SECONDS)
            for engine in self.rehearsal():
                while engine.calls:
                    await asyncio.sleep(0)
        except BaseException as error:
            self.renewed(error)
        else:
            self.renewed()

    def come_back(self):
        # asyncio knows the running loop together with the process id, which is another now.
        if self.loop.is_running():
            asyncio._set_running_loop(self.loop)

    def _readable(self):
        try:
            frames = self.wire.read()
            if frames is None:
                os._exit(0)
            self.frames(frames)
        except ProtocolError as error:
            os.write(2, f"[cloister] protocol error: {error}\n".encode("utf-8", "replace"))
            os._exit(EXIT_PROTOCOL)

    def start(self, call):
        # The task copies the context it is made in: what user code prints is the call's.
        token = current_call.set(call)
        try:
            call.task = self.loop.create_task(self._serve(call))
        finally:
            current_call.reset(token)
        call.task.add_done_callback(partial(self._ended, call))

    def _ended(self, call, _task):
        if not call.closed:
            # It was cancelled before its first line.
            self.fail(call, faults.cancelled())
        if time.monotonic() - call.started < _LONG_SECONDS:
            self.left()
        else:
            self.loop.call_later(0, self.left)  # Behind what is there to be read.

    def changed(self, call):
        waiters, call.waiters = call.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def cancel(self, call):
        if call.task is None:
            self.fail(call, faults.cancelled())
        elif self.lifespan:
            # The app is told by http.disconnect first, and by cancellation right after: what waits is woken before it is cancelled.
            self.changed(call)
            self.loop.call_soon(call.task.cancel)
        else:
            call.task.cancel()

    async def wait(self, call):
        """Until body, window or cancellation of the call change."""
        waiter = self.loop.create_future()
        call.waiters.append(waiter)
        await waiter

    async def _serve(self, call):
        try:
            if self.lifespan:
                await serve_asgi(self, call)
            else:
                await self._handle(call)
        except BaseException as error:
            self.fail(call, faults.describe(error))

    async def _handle(self, call):
        body = b"".join(call.chunks)
        call.chunks.clear()
        event = read_event(body) if call.kind == "event" else function_url_event(call, body)
        arguments = (event, Context(self.init, call))[: self.target.arguments]
        result = self.target.call(*arguments)
        if hasattr(result, "__await__"):
            result = await result
        if hasattr(result, "__anext__"):
            await self._stream(call, result)
            return
        if call.kind == "event":
            status, headers, body = 200, _JSON, answers.event_answer(result)
        else:
            status, headers, body = answers.http_answer(result)
        if not self.answer_whole(call, status, headers, body):
            self.send_head(call, status, headers)
            await self.send_body(call, body)
            self.close(call, end_frame(call))

    async def _stream(self, call, pieces):
        if call.kind == "event":
            raise faults.BadResponse("The handler yields, which answers HTTP requests only. Return one value.")
        try:
            async for piece in pieces:
                if not call.head_sent:
                    self.send_head(call, 200, answers.stream_head(piece))
                await self.send_body(call, answers.piece_bytes(piece))
        finally:
            await pieces.aclose()
        if not call.head_sent:
            self.send_head(call, 200, answers.stream_head(""))
        self.close(call, end_frame(call))

    def send_head(self, call, status, headers):
        call.head_sent = True
        self.wire.send(head_frame(call.stream, status, headers))

    async def send_body(self, call, body):
        """Sends a piece of the body; waits while the window is spent."""
        rest = memoryview(body)
        while len(rest):
            while call.send_window <= 0 and not call.cancelled:
                await self.wait(call)
            if call.cancelled or call.closed:
                raise faults.InvocationCancelled
            size = min(len(rest), MAX_DATA_BYTES, call.send_window)
            call.send_window -= size
            self.wire.send(frame(DATA, call.stream, bytes(rest[:size])))
            rest = rest[size:]
