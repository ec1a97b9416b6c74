"""The engine of sync handlers and WSGI apps: one thread reads frames, others run user code, the main thread first among them.

The main thread runs user code because some modules (signal above all) work there only.
"""

import _signal
import json
import os
import threading
from _queue import SimpleQueue
from contextvars import copy_context

from . import answers, faults, lifecycle
from .calls import Engine, end_frame, head_frame
from .context import Context, function_url_event
from .logs import current_call
from .wire import DATA, EXIT_PROTOCOL, MAX_DATA_BYTES, ProtocolError, Wire, frame

# Interrupts a system call of the main thread when its invocation is cancelled; near the top of the real-time range, where
# nobody looks for one.
_CANCEL_SIGNAL = 62

_UNINTERRUPTED = frozenset(
    method.__code__ for method in (Wire.send, Engine.close, Engine.fail, Engine.answer_whole)
)


class ThreadedEngine(Engine):
    def __init__(self, wire, logs, init, target):
        super().__init__(wire, logs, init, target)
        # One condition for all calls: waiting is the exception, most calls never do.
        self.condition = threading.Condition()
        self._jobs = SimpleQueue()
        self._lock = threading.Lock()
        self._free = 1
        self._main = threading.get_ident()
        self._running = {}
        self._listening = False
        self._context = copy_context()
        if target.kind == "wsgi":
            from .wsgi import serve

            self._serve_app = serve

    def run(self):
        """Serves until the socket closes. Called on the main thread; never returns."""
        self.listen()
        while True:
            self._work()

    def listen(self):
        if self._listening:
            return
        self._listening = True
        _signal.signal(_CANCEL_SIGNAL, self._on_signal)
        threading.Thread(target=self._read, name="cloister-frames", daemon=True).start()

    def _read(self):
        try:
            while True:
                frames = self.wire.read()
                if frames is None:
                    os._exit(0)
                self.frames(frames)
        except ProtocolError as error:
            os.write(2, f"[cloister] protocol error: {error}\n".encode("utf-8", "replace"))
            os._exit(EXIT_PROTOCOL)
        except BaseException as error:
            os.write(2, f"[cloister] runner failed: {error!r}\n".encode("utf-8", "replace"))
            os._exit(70)

    def start(self, call):
        with self._lock:
            self._free -= 1
            if self._free < 0:
                try:
                    threading.Thread(target=self._work_forever, name="cloister-call", daemon=True).start()
                    self._free += 1
                except RuntimeError:
                    self._free += 1
                    message = "The sandbox has no thread to spare. Lower concurrency or raise the process limit."
                    self.fail(call, faults.plain("StartError", message, "function_error"))
                    self.left()
                    return
        self._jobs.put(call)

    def changed(self, call):
        with self.condition:
            self.condition.notify_all()

    def cancel(self, call):
        self.changed(call)
        thread = self._running.get(call.stream)
        if self.wants_whole and not call.body_ended:
            self.fail(call, faults.cancelled())
        elif thread == self._main:
            _signal.pthread_kill(thread, _CANCEL_SIGNAL)
        elif thread is not None:
            import ctypes

            error = ctypes.py_object(faults.InvocationCancelled)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)

    def _on_signal(self, _number, at):
        # A frame must leave whole, and an answer that is being sent is an answer.
        while at is not None:
            if at.f_code in _UNINTERRUPTED:
                return
            at = at.f_back
        for stream, thread in list(self._running.items()):
            call = self.calls.get(stream)
            if thread == self._main and call and call.cancelled and not call.interrupted:
                call.interrupted = True
                raise faults.InvocationCancelled

    def another(self, wire, logs, init, target):
        return ThreadedEngine(wire, logs, init, target)

    def turn(self):
        self._work()

    def complete(self, awaitable):
        import asyncio

        asyncio.run(_await(awaitable))

    def run_after_restore(self):
        # Nothing is being served yet, so the main thread takes it.
        with self._lock:
            self._free -= 1
        self._jobs.put(None)

    def _after_restore(self):
        try:
            lifecycle.run(self.after_restore, self.complete)
            for engine in self.rehearsal():
                engine.turn()
        except BaseException as error:
            self.renewed(error)
        else:
            self.renewed()

    def _work_forever(self):
        while True:
            self._work()

    def _work(self):
        try:
            call = self._jobs.get()
        except faults.InvocationCancelled:
            return  # It struck after its call had ended.
        if call is None:
            self._after_restore()
        else:
            try:
                self._serve(call)
            except faults.InvocationCancelled:
                pass
        with self._lock:
            self._free += 1
        if call is not None:
            self.left()

    def _serve(self, call):
        thread = threading.get_ident()
        self._running[call.stream] = thread
        try:
            if call.cancelled:
                raise faults.InvocationCancelled
            context = self._context.copy()
            context.run(current_call.set, call)
            context.run(self._call, call)
        except BaseException as error:
            fault = faults.cancelled() if call.cancelled else faults.describe(error)
            self.fail(call, fault)
        finally:
            self._running.pop(call.stream, None)

    def _call(self, call):
        if self.target.kind == "wsgi":
            self._serve_app(self, call)
            return
        result = self._handle(call)
        if call.kind == "event":
            body = answers.event_answer(result)
            if not self.answer_whole(call, 200, [["content-type", "application/json"]], body):
                self.send_all(call, 200, [["content-type", "application/json"]], body)
        elif hasattr(result, "__next__") and hasattr(result, "send"):
            self._stream(call, result)
        else:
            status, headers, body = answers.http_answer(result)
            if not self.answer_whole(call, status, headers, body):
                self.send_all(call, status, headers, body)

    def _handle(self, call):
        body = b"".join(call.chunks)
        call.chunks.clear()
        if call.kind == "event":
            event = read_event(body)
        else:
            event = function_url_event(call, body)
        arguments = (event, Context(self.init, call))[: self.target.arguments]
        result = self.target.call(*arguments)
        if hasattr(result, "__await__"):
            import asyncio

            result = asyncio.run(_await(result))
        return result

    def _stream(self, call, pieces):
        try:
            first = next(pieces, "")
            self.send_head(call, 200, answers.stream_head(first))
            self.send_body(call, answers.piece_bytes(first))
            for piece in pieces:
                self.send_body(call, answers.piece_bytes(piece))
        finally:
            pieces.close()
        self.close(call, end_frame(call))

    def send_all(self, call, status, headers, body):
        self.send_head(call, status, headers)
        self.send_body(call, body)
        self.close(call, end_frame(call))

    def send_head(self, call, status, headers):
        call.head_sent = True
        self.wire.send(head_frame(call.stream, status, headers))

    def send_body(self, call, body):
        """Sends a piece of the body; waits while the window is spent."""
        rest = memoryview(body)
        while len(rest):
            if call.send_window <= 0:
                with self.condition:
                    self.condition.wait_for(lambda: call.send_window > 0 or call.cancelled)
            if call.cancelled:
                raise faults.InvocationCancelled
            size = min(len(rest), MAX_DATA_BYTES, call.send_window)
            call.send_window -= size
            self.wire.send(frame(DATA, call.stream, bytes(rest[:size])))
            rest = rest[size:]

    def next_chunk(self, call):
        """The next piece of the request body, b"" at its end; waits for it."""
        with self.condition:
            self.condition.wait_for(lambda: call.chunks or call.body_ended or call.cancelled)
        if call.cancelled:
            raise faults.InvocationCancelled
        if not call.chunks:
            return b""
        chunk = call.chunks.popleft()
        grant = call.consumed(len(chunk))
        if grant:
            self.wire.send(grant)
        return chunk


async def _await(result):
    return await result


def read_event(body):
    """The event of an invocation; an empty body is null."""
    if not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise faults.BadResponse(f"The event is no JSON: {error}.") from None
