"""One invocation, and what both engines do with the frames of a stream."""

import time
from collections import deque
from threading import Lock

from . import faults
from .line import Line
from .logs import CallLog
from .renewal import renew, say_ready, since_ms
from .wire import (
    CANCEL,
    DATA,
    END,
    ERROR,
    HEAD,
    INIT_DONE,
    INVOKE,
    MAX_DATA_BYTES,
    RECALL,
    RESTORED,
    WINDOW,
    WINDOW_BYTES,
    ProtocolError,
    frame,
    json_frame,
    parse_json,
)

# An event, or the request a handler gets whole, is at most this: the platform's limit for synchronous bodies.
MAX_WHOLE_BYTES = 6 << 20
_HALF_WINDOW_BYTES = WINDOW_BYTES // 2


def _trace_of(headers):
    """Of the request that brought an event, only its trace is told (W3C Trace Context)."""
    if not isinstance(headers, list):
        return []
    return [pair for pair in headers if _is_pair(pair) and pair[0] in ("traceparent", "tracestate")]


class Call:
    """State of one stream. The engine decides how to wait for a change of it."""

    __slots__ = (
        "stream", "id", "kind", "method", "url", "path", "headers", "deadline", "started", "behind", "begun", "log",
        "chunks", "body_bytes", "body_ended", "receive_window", "ungranted", "send_window",
        "head_sent", "cancelled", "interrupted", "closed", "waiters", "task",
    )  # fmt: skip

    def __init__(self, wire, stream, head):
        self.started = time.monotonic()
        self.stream = stream
        self.id = _text(head, "id")
        self.kind = head.get("kind")
        if self.kind == "event":
            # What an app sees of an event; a handler gets the event itself.
            self.method = "POST"
            self.url = self.path = "/"
            self.headers = [["content-type", "application/json"], *_trace_of(head.get("headers"))]
        elif self.kind == "http":
            self.method = _text(head, "method")
            self.url = _text(head, "url")
            self.path = _text(head, "path")
            self.headers = head.get("headers")
        else:
            raise ProtocolError(f"an invocation of kind {self.kind!r}")
        if not isinstance(self.headers, list) or not all(map(_is_pair, self.headers)):
            raise ProtocolError("the headers of an invocation are no list of pairs")
        left_ms = head.get("deadlineMs")
        if not isinstance(left_ms, (int, float)):
            raise ProtocolError("an invocation without deadline")
        self.deadline = self.started + left_ms / 1000
        # It is not to begin before those that came earlier have ended.
        self.behind = head.get("behind") is True
        self.begun = False
        self.log = CallLog(wire, stream)
        self.chunks = deque()
        self.body_bytes = 0
        self.body_ended = False
        self.receive_window = WINDOW_BYTES
        self.ungranted = 0
        self.send_window = WINDOW_BYTES
        self.head_sent = False
        self.cancelled = False
        self.interrupted = False
        self.closed = False
        self.waiters = []
        self.task = None

    def begin(self):
        """Its time begins, that of one that waited behind others only now."""
        self.begun = True
        if self.behind:
            waited = time.monotonic() - self.started
            self.started += waited
            self.deadline += waited

    def take_data(self, payload):
        """Keeps a piece of the request body."""
        size = len(payload)
        if not 1 <= size <= MAX_DATA_BYTES:
            raise ProtocolError(f"a DATA frame of {size} bytes")
        if self.body_ended:
            raise ProtocolError("DATA after END")
        self.receive_window -= size
        if self.receive_window < 0:
            raise ProtocolError("more DATA than the window allows")
        self.body_bytes += size
        self.chunks.append(payload)

    def consumed(self, size):
        """Says that `size` bytes of the body were read; gives a WINDOW frame when it is time for one."""
        self.ungranted += size
        if self.ungranted < _HALF_WINDOW_BYTES or self.body_ended:
            return b""
        granted, self.ungranted = self.ungranted, 0
        self.receive_window += granted
        return frame(WINDOW, self.stream, granted.to_bytes(4, "little"))


class Engine:
    """Dispatches frames to calls. Subclasses run user code."""

    # Whether it can do so while it serves.
    can_rehearse = True

    def __init__(self, wire, logs, init, target):
        self.wire = wire
        self.logs = logs
        self.init = init
        self.target = target
        self.calls = logs.open
        self.last_stream = 0
        # Hooks that run after a restore; calls that come meanwhile wait.
        self.after_restore = []
        self._renewing = None
        self._renew_ms = 0
        self._warm_turns = 0
        self._waiting = []
        self._waiting_lock = Lock()
        self._line = Line()
        # Why no call can be served.
        self._refusal = None
        # A handler starts when its request is whole; an app at once.
        self.wants_whole = target.kind == "handler"

    def frames(self, frames):
        for kind, stream, payload in frames:
            if kind == INVOKE:
                self._open(stream, payload)
            elif kind in (DATA, END):
                call = self.calls.get(stream)
                if call is None:
                    if not 0 < stream <= self.last_stream:
                        raise ProtocolError(f"a body for stream {stream}, which is not open")
                elif kind == DATA:
                    self._data(call, payload)
                else:
                    call.body_ended = True
                    if self.wants_whole:
                        self._begin(call)
                    else:
                        self.changed(call)
            elif kind == WINDOW:
                if len(payload) != 4:
                    raise ProtocolError("a WINDOW frame of the wrong size")
                call = self.calls.get(stream)
                if call is not None:
                    call.send_window += int.from_bytes(payload, "little")
                    self.changed(call)
            elif kind == CANCEL:
                call = self.calls.get(stream)
                if call is not None and not call.cancelled:
                    call.cancelled = True
                    if self._line.leave(call):
                        self.fail(call, faults.cancelled())
                    else:
                        self.cancel(call)
            elif kind == RECALL:
                call = self.calls.get(stream)
                if call is not None and self._line.leave(call):
                    self.fail(call, faults.recalled())
            elif kind == RESTORED:
                self._renew(parse_json(payload, "RESTORED"))
            else:
                raise ProtocolError("a second INIT")

    def _open(self, stream, payload):
        if stream <= self.last_stream:
            raise ProtocolError(f"stream {stream} was opened before")
        self.last_stream = stream
        call = Call(self.wire, stream, parse_json(payload, "INVOKE"))
        self.calls[stream] = call
        self.logs.outside.renew()
        if self._refusal:
            self.fail(call, self._refusal)
        elif not self.wants_whole:
            self._begin(call)

    def _begin(self, call):
        with self._waiting_lock:
            if self._renewing is not None:
                self._waiting.append(call)
                return
        if self._line.take(call):
            self._start(call)

    def _start(self, call):
        call.begin()
        self.start(call)

    def left(self):
        """The code of a call has ended, and its answer has left before: a call whose process ends before it began was seen by nobody."""
        call = self._line.left()
        if call is not None:
            self._start(call)

    def settle(self, warm_turns):
        """Makes ready to be frozen: warms what the function asks for and what every call runs, has the function let go of what is
        not to be copied, and leaves no garbage. Raises what a hook raises."""
        import gc

        from . import lifecycle
        from .rehearsal import rehearse

        hooks = lifecycle.Lifecycle(self.target.module)
        lifecycle.run(hooks.warm_up, self.complete)
        for engine in rehearse(self.another, self.target, warm_turns):
            engine.turn()
        lifecycle.run(hooks.before_snapshot, self.complete)
        self.after_restore = hooks.after_restore
        self.listen()
        gc.collect()
        # What is there is never looked at again, so that a clone's collections do not copy its pages.
        gc.freeze()

    def _renew(self, restored):
        started = time.monotonic()
        renew(restored)
        self.come_back()
        turns = restored.get("warmTurns")
        self._warm_turns = turns if isinstance(turns, int) and self.can_rehearse else 0
        if not self.after_restore and self._warm_turns <= 0:
            say_ready(self.wire, renewMs=since_ms(started))
            return
        self._renewing = started
        self.run_after_restore()

    def rehearsal(self):
        """The hooks have run. Touches what a call will touch, while no call waits for it: engines with something to serve."""
        from .rehearsal import rehearse

        self._renew_ms = since_ms(self._renewing)
        self.logs.outside.finish()
        return rehearse(self.another, self.target, self._warm_turns, restores=False)

    def renewed(self, error=None):
        """The hooks have run, or failed. Only now code of the function is called."""
        self.logs.outside.finish()
        if error is None:
            say_ready(self.wire, renewMs=self._renew_ms)
        else:
            fault = faults.describe(error, "function_init_error")
            self._refusal = {**fault, "exiting": True}
            self.wire.send(json_frame(INIT_DONE, 0, {"ok": False, "error": fault}))
        with self._waiting_lock:
            self._renewing = None
            waiting, self._waiting = self._waiting, []
        if self._refusal:
            for call in list(self.calls.values()):
                self.fail(call, self._refusal)
            return
        for call in waiting:
            if not call.closed and self._line.take(call):
                self._start(call)

    def _data(self, call, payload):
        call.take_data(payload)
        if not self.wants_whole:
            self.changed(call)
            return
        if call.body_bytes > MAX_WHOLE_BYTES:
            message = "The request body is over 6 MiB, more than a handler's event can carry. Use an ASGI or WSGI app."
            self.fail(call, faults.plain("BodyTooLarge", message, "function_error"))
            return
        grant = call.consumed(len(payload))
        if grant:
            self.wire.send(grant)

    def another(self, wire, logs, init, target):
        """An engine of the same kind, to rehearse with."""
        raise NotImplementedError

    def turn(self):
        """Serves what has come, without waiting for more."""
        raise NotImplementedError

    def complete(self, awaitable):
        """Waits for what a hook gave, before the engine runs."""
        raise NotImplementedError

    def run_after_restore(self):
        """Runs `after_restore` where user code belongs, then calls `renewed`."""
        raise NotImplementedError

    def listen(self):
        """Waits for frames already, if that takes a thread."""

    def come_back(self):
        """Mends what knows the process by its id."""

    def start(self, call):
        """Begins to run user code for a call."""
        raise NotImplementedError

    def changed(self, call):
        """Body, window or cancellation of a call have changed."""
        raise NotImplementedError

    def cancel(self, call):
        """Tries to stop user code."""
        raise NotImplementedError

    def close(self, call, last=b""):
        """Sends the last frame of a stream after its log. False if the stream was closed before."""
        call.log.finish()
        if call.closed:
            return False
        call.closed = True
        self.calls.pop(call.stream, None)
        if last:
            self.wire.send(last)
        return True

    def fail(self, call, fault):
        """Ends a stream with an error."""
        if call.cancelled:
            fault = faults.cancelled()
        self.close(call, json_frame(ERROR, call.stream, fault))

    def answer_whole(self, call, status, headers, body):
        """Sends a short answer in one write. False if it does not fit and must be sent in pieces."""
        size = len(body)
        if size > MAX_DATA_BYTES or size > call.send_window or call.head_sent:
            return False
        head = head_frame(call.stream, status, headers)
        data = frame(DATA, call.stream, body) if size else b""
        self.close(call, b"".join((head, data, end_frame(call))))
        return True


def head_frame(stream, status, headers):
    return json_frame(HEAD, stream, {"status": status, "headers": headers})


def end_frame(call):
    took_ms = (time.monotonic() - call.started) * 1000
    return frame(END, call.stream, b'{"handlerMs":%.3f}' % took_ms)


def _text(head, name):
    value = head.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"an invocation without {name}")
    return value


def _is_pair(value):
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
