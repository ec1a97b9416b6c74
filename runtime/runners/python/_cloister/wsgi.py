"""WSGI apps, PEP 3333."""

import io
import sys
from urllib.parse import unquote_to_bytes

from .answers import checked_head
from .calls import end_frame
from .context import joined_headers
from .faults import BadResponse


def serve(engine, call):
    """Runs the app for one call and sends its answer as it comes."""
    response = _Response(engine, call)
    result = engine.target.call(_environ(engine, call), response.start)
    try:
        for piece in result:
            response.write(piece)
    finally:
        if hasattr(result, "close"):
            result.close()
    response.finish()


class _Response:
    def __init__(self, engine, call):
        self._engine = engine
        self._call = call
        self._head = None
        # The first piece waits for a second one or the end: short answers leave in one write.
        self._first = None

    def start(self, status, headers, exc_info=None):
        """start_response of PEP 3333."""
        if exc_info and self._call.head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._head and not exc_info:
            raise BadResponse("The app called start_response twice without exc_info.")
        try:
            self._head = checked_head(int(status[:3]), [(name, value) for name, value in headers])
        except (ValueError, TypeError) as error:
            raise BadResponse(f"The app's status line or headers cannot be read: {error}.") from None
        return self.write

    def write(self, piece):
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            raise BadResponse(f"The app gave a piece of type {type(piece).__name__}. WSGI bodies are bytes.")
        if not piece:
            return
        self._check_started()
        if self._first is None and not self._call.head_sent:
            self._first = bytes(piece)
            return
        self._flush()
        self._engine.send_body(self._call, piece)

    def finish(self):
        self._check_started()
        body = self._first or b""
        if not self._engine.answer_whole(self._call, *self._head, body):
            self._flush()
            self._engine.close(self._call, end_frame(self._call))

    def _flush(self):
        if not self._call.head_sent:
            self._engine.send_head(self._call, *self._head)
        if self._first:
            first, self._first = self._first, None
            self._engine.send_body(self._call, first)

    def _check_started(self):
        if self._head is None:
            raise BadResponse("The app answered before it called start_response.")


def _environ(engine, call):
    path, _, query = call.path.partition("?")
    headers = joined_headers(call.headers)
    host, _, port = headers.get("host", "localhost").partition(":")
    scheme = headers.get("x-forwarded-proto", "http")
    environ = {
        "REQUEST_METHOD": call.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "RAW_URI": call.path,
        "REQUEST_URI": call.path,
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": headers.get("x-forwarded-for", "127.0.0.1").split(",")[0].strip(),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BufferedReader(_Input(engine, call)),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "cloister.invocation_id": call.id,
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        # PEP 3333: header values are strings of latin-1 code points.
        environ[key] = value.encode("utf-8", "replace").decode("latin-1")
    return environ


class _Input(io.RawIOBase):
    """wsgi.input: reads the request body as it comes."""

    def __init__(self, engine, call):
        self._engine = engine
        self._call = call
        self._rest = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self._rest:
            self._rest = self._engine.next_chunk(self._call)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
