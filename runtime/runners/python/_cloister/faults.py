"""Errors as the ERROR frame tells them."""

import os

_MAX_MESSAGE_BYTES = 4096
_MAX_STACK_BYTES = 16_384
_OWN_FOLDER = os.path.dirname(__file__)


class InvocationCancelled(BaseException):
    """Raised in user code whose invocation was cancelled. A BaseException, as asyncio's own, so that `except Exception` lets it pass."""


class BadResponse(Exception):
    """What the function gave back is no answer."""


class NoHandler(Exception):
    """The bundle has nothing that can be called."""


class LoadFailed(Exception):
    """The function cannot be loaded, and it is not an exception of its own that says why."""


def describe(error, code="function_error"):
    """The error object for an exception, with the frames of user code only."""
    if isinstance(error, BadResponse):
        return plain("BadResponse", str(error), "function_bad_response")
    if isinstance(error, NoHandler):
        return plain("NoHandler", str(error), "function_no_handler")
    if isinstance(error, LoadFailed):
        return plain("InitError", str(error), code)
    try:
        message = str(error)
    except BaseException as second:  # A broken __str__ must not hide the error.
        message = f"<no message: str() failed with {type(second).__name__}>"
    if isinstance(error, SystemExit):
        message = f"The function called sys.exit({message})."
    return plain(type(error).__name__, message or type(error).__name__, code, _stack(error))


def plain(kind, message, code, stack=""):
    """An error object, cut to what the protocol allows."""
    return {
        "type": kind,
        "message": _cut(message, _MAX_MESSAGE_BYTES),
        "stack": _cut(stack, _MAX_STACK_BYTES),
        "code": code,
    }


def cancelled():
    return plain("Cancelled", "The invocation was cancelled.", "function_cancelled")


def recalled():
    """Of a call that waited behind others, and that no code of the function has seen."""
    return plain("Recalled", "The call had not begun.", "function_recalled")


def _stack(error):
    import traceback

    try:
        summary = traceback.TracebackException.from_exception(error, limit=-50, compact=True)
        _drop_own_frames(summary, set())
        return "".join(summary.format())
    except BaseException as second:
        return f"<no stack: {type(second).__name__}>"


def _drop_own_frames(summary, seen):
    if summary is None or id(summary) in seen:
        return
    seen.add(id(summary))
    hidden = (_OWN_FOLDER, "<frozen importlib")
    summary.stack[:] = [entry for entry in summary.stack if not entry.filename.startswith(hidden)]
    _drop_own_frames(summary.__cause__, seen)
    _drop_own_frames(summary.__context__, seen)


def _cut(text, limit):
    data = text.encode("utf-8", "replace")
    return data[:limit].decode("utf-8", "ignore")
