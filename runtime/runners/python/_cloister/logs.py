"""print and logging of user code as LOG frames of the invocation that wrote them."""

import io
import sys
from contextvars import ContextVar

from .faults import InvocationCancelled
from .wire import LOG, MAX_DATA_BYTES, frame

MAX_LOG_BYTES = 1 << 20
_TRUNCATED = b"[cloister] log truncated after 1 MiB\n"
# A line without end leaves in pieces of this size.
_PIECE_CHARACTERS = 16_384

# The invocation that runs here; each call has a context of its own.
current_call = ContextVar("cloister_call", default=None)


class CallLog:
    """Log of one invocation, or, with stream 0, of all that happens outside."""

    __slots__ = ("_wire", "_stream", "_partial", "_left_bytes")

    def __init__(self, wire, stream):
        self._wire = wire
        self._stream = stream
        self._partial = ["", ""]
        self._left_bytes = MAX_LOG_BYTES

    def renew(self):
        """Gives the log outside invocations its bound again; each invocation does so once."""
        self._left_bytes = MAX_LOG_BYTES

    def write(self, fd, text):
        """Takes text; whole lines leave at once, so that a function which is killed has said what it said."""
        if self._left_bytes < 0:
            return
        text = self._partial[fd - 1] + text
        end = text.rfind("\n") + 1
        if not end and len(text) >= _PIECE_CHARACTERS:
            end = len(text)
        self._partial[fd - 1] = text[end:]
        if end:
            self._send(fd, text[:end])

    def finish(self):
        """Sends what has no line feed yet."""
        for fd in (1, 2):
            text = self._partial[fd - 1]
            if text:
                self._partial[fd - 1] = ""
                self._send(fd, text + "\n")

    def _send(self, fd, text):
        data = text.encode("utf-8", "replace")
        fits = data[: self._left_bytes]
        self._left_bytes -= len(data)
        frames = []
        for piece in _pieces(fits):
            frames.append(frame(LOG, self._stream, bytes((fd,)) + piece))
        if self._left_bytes < 0:
            frames.append(frame(LOG, self._stream, bytes((fd,)) + _TRUNCATED))
            self._left_bytes = -1
            self._partial = ["", ""]
        self._wire.send(b"".join(frames))


def _pieces(data):
    """Cuts UTF-8 to LOG payloads, between characters."""
    at = 0
    while at < len(data):
        end = min(at + MAX_DATA_BYTES - 1, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[at:end]
        at = end


class Logs:
    """Knows the open calls: what a thread of user code prints belongs to the only one there is."""

    def __init__(self, wire):
        self.outside = CallLog(wire, 0)
        self.open = {}

    def write(self, fd, text):
        call = current_call.get()
        if call is None:
            calls = [call for call in list(self.open.values()) if call.begun]
            call = calls[0] if len(calls) == 1 else None
        if call is None or call.closed:
            self.outside.write(fd, text)
            return
        call.log.write(fd, text)
        if call.cancelled:
            # The interruption may have come while the line was being sent, and passed.
            raise InvocationCancelled


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, text):
        self._text = text

    def writable(self):
        return True

    def fileno(self):
        return self._text.fileno()

    def write(self, data):
        data = bytes(data)
        self._text.write(data.decode("utf-8", "replace"))
        return len(data)


class LogStream(io.TextIOBase):
    """Stands for sys.stdout and sys.stderr."""

    encoding = "utf-8"
    errors = "replace"
    line_buffering = True

    def __init__(self, logs, fd, name):
        self._logs = logs
        self._fd = fd
        self.name = name
        self.mode = "w"
        self.buffer = _Bytes(self)

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            self._logs.write(self._fd, text)
        return len(text)

    def writable(self):
        return True

    def isatty(self):
        return False

    def fileno(self):
        return self._fd

    def reconfigure(self, **_options):
        """Accepted and ignored: lines always leave at once, as UTF-8."""

    def close(self):
        """Ignored: other invocations write here, too."""


def capture(logs):
    """From here on print belongs to invocations."""
    sys.stdout = LogStream(logs, 1, "<stdout>")
    sys.stderr = LogStream(logs, 2, "<stderr>")
