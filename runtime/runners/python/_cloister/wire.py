"""Frames of runtime/protocol/README.md, as a runner reads and writes them."""

import json
import os
import struct
from _thread import allocate_lock

INIT = 0x01
INVOKE = 0x02
DATA = 0x03
END = 0x04
CANCEL = 0x05
WINDOW = 0x06
RESTORED = 0x07
RECALL = 0x08
READY = 0x10
INIT_DONE = 0x11
HEAD = 0x12
ERROR = 0x13
LOG = 0x14

INCOMING = frozenset((INIT, INVOKE, DATA, END, CANCEL, WINDOW, RESTORED, RECALL))
MAX_PAYLOAD_BYTES = 262_144
MAX_DATA_BYTES = 65_536
WINDOW_BYTES = 262_144

SOCKET_FD = 3
EXIT_PROTOCOL = 76  # sysexits.h EX_PROTOCOL

_HEADER = struct.Struct("<IIBBH")
_READ_BYTES = 65_536

encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class ProtocolError(Exception):
    """The other side sent what no frame may be."""


class Wire:
    """The socket. One thread reads; any thread sends, whole frames at a time."""

    def __init__(self, fd=SOCKET_FD, out_fd=None):
        self.fd = fd
        self._out_fd = fd if out_fd is None else out_fd
        self._held = b""
        self._lock = allocate_lock()

    def read(self):
        """Waits for bytes and gives the frames that are whole: (type, stream, payload). None at end of file."""
        try:
            got = os.read(self.fd, _READ_BYTES)
        except ConnectionResetError:
            return None
        if not got:
            return None
        held = self._held + got if self._held else got
        frames = []
        at = 0
        whole = len(held)
        while whole - at >= 12:
            length, stream, kind, zero, zeros = _HEADER.unpack_from(held, at)
            if length > MAX_PAYLOAD_BYTES:
                raise ProtocolError(f"a frame of {length} bytes is over the limit")
            if zero or zeros:
                raise ProtocolError("a reserved header byte is not zero")
            if kind not in INCOMING:
                raise ProtocolError(f"frame type 0x{kind:02x} is none a runner takes")
            end = at + 12 + length
            if end > whole:
                break
            frames.append((kind, stream, held[at + 12 : end]))
            at = end
        self._held = held[at:]
        return frames

    def forget_senders(self):
        """In a forked child: the thread that held the lock is not there to give it back."""
        self._lock = allocate_lock()

    def send(self, data):
        """Sends frames made by `frame`, joined or not. A closed socket ends the process: nobody listens, or this is a
        child that user code forked and let run on."""
        with self._lock:
            try:
                sent = os.write(self._out_fd, data)
                if sent < len(data):
                    rest = memoryview(data)
                    while sent < len(data):
                        sent += os.write(self._out_fd, rest[sent:])
            except OSError:
                os._exit(0)


def frame(kind, stream, payload=b""):
    """One frame as bytes."""
    return _HEADER.pack(len(payload), stream, kind, 0, 0) + payload


def json_frame(kind, stream, value):
    """One frame with a JSON payload. Lone surrogates, which UTF-8 cannot carry, become question marks."""
    return frame(kind, stream, encode_json(value).encode("utf-8", "replace"))


def parse_json(payload, what):
    """The object in a payload. ProtocolError if it is none."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is no JSON object")
    return value
