"""What a handler returns, as head and body of an answer."""

import json

from .faults import BadResponse

_JSON = [["content-type", "application/json"]]
_TEXT = [["content-type", "text/plain; charset=utf-8"]]
_BYTES = [["content-type", "application/octet-stream"]]


def event_answer(result):
    """Body bytes of the answer to an event: the result as JSON."""
    return _to_json(result)


def http_answer(result):
    """(status, headers, body bytes) of a handler's result for an HTTP request."""
    if isinstance(result, dict) and "statusCode" in result:
        return _function_url_response(result)
    if isinstance(result, str):
        return 200, _TEXT, result.encode("utf-8", "replace")
    if isinstance(result, (bytes, bytearray, memoryview)):
        return 200, _BYTES, bytes(result)
    return 200, _JSON, _to_json(result)


def stream_head(first):
    """Headers of a generator's answer, by its first piece."""
    return _TEXT if isinstance(first, str) else _BYTES


def piece_bytes(piece):
    """One piece of a generator's answer."""
    if isinstance(piece, str):
        return piece.encode("utf-8", "replace")
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    raise BadResponse(f"The handler yielded {_kind(piece)}. Yield str or bytes.")


def checked_head(status, headers):
    """Status and header pairs that are fit to send; BadResponse if they are not."""
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise BadResponse(f"The answer's status is {status!r}. Use a number from 200 to 599.")
    pairs = []
    for name, value in headers:
        if not name or any(character in name + value for character in "\r\n\0"):
            raise BadResponse(f"The answer's header {name!r} has a line break, a zero byte or no name.")
        pairs.append([name.lower(), value])
    return status, pairs


def _function_url_response(result):
    status = result["statusCode"]
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    try:
        headers = _response_headers(result)
    except (AttributeError, TypeError, ValueError) as error:
        raise BadResponse(f"The answer's headers or cookies cannot be read: {error}.") from None
    body = result.get("body")
    if body is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    status, pairs = checked_head(status, headers)
    return status, pairs, _response_body(body, result.get("isBase64Encoded"))


def _response_headers(result):
    headers = []
    for name, value in (result.get("headers") or {}).items():
        headers.append((str(name), _header_value(value)))
    for name, values in (result.get("multiValueHeaders") or {}).items():
        headers.extend((str(name), _header_value(value)) for value in values)
    for cookie in result.get("cookies") or ():
        headers.append(("set-cookie", str(cookie)))
    return headers


def _header_value(value):
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _response_body(body, is_base64):
    if body is None:
        return b""
    if is_base64:
        from base64 import b64decode

        try:
            return b64decode(body, validate=True)
        except (ValueError, TypeError):
            raise BadResponse("The answer's body is not the base64 it says it is.") from None
    if isinstance(body, str):
        return body.encode("utf-8", "replace")
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    return _to_json(body)


def _to_json(value):
    try:
        return _encode(value).encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError) as error:
        message = f"The handler returned {_kind(value)} that cannot be written as JSON: {error}."
        raise BadResponse(message) from None


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _kind(value):
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
