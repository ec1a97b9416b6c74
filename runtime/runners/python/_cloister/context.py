"""What a handler is given: the event of an HTTP request and the context object."""

import os
import re
import time

_TEXT_KINDS = ("json", "xml", "javascript", "x-www-form-urlencoded")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

# W3C Trace Context, level 1: version, trace, parent, flags.
_TRACEPARENT = r"[0-9a-f]{2}-([0-9a-f]{8})([0-9a-f]{24})-([0-9a-f]{16})-[0-9a-f]([0-9a-f])"
_TRACE_VARIABLE = "_X_AMZN_TRACE_ID"
_shown = False


def _show_trace(headers):
    """Lambda tells a handler's trace in this variable; with more calls at once it is that of the one that began last."""
    global _shown
    for name, value in headers:
        # Compiled, and kept by the module, once there is a trace: most runners never see one.
        found = re.match(_TRACEPARENT, value) if name == "traceparent" else None
        if found:
            start, unique, parent, flags = found.groups()
            sampled = int(flags, 16) & 1
            os.environ[_TRACE_VARIABLE] = f"Root=1-{start}-{unique};Parent={parent};Sampled={sampled}"
            _shown = True
            return
    if _shown:
        os.environ.pop(_TRACE_VARIABLE, None)
        _shown = False


class Context:
    """The second argument of a handler; names as in AWS Lambda for Python, and in camel case."""

    def __init__(self, init, call):
        self.function_name = self.functionName = init["function"]
        self.function_version = self.functionVersion = str(init["version"])
        self.aws_request_id = self.awsRequestId = call.id
        self.invocation_id = self.invocationId = call.id
        self.memory_limit_in_mb = self.memoryLimitInMB = init.get("memoryMb", 0)
        self.invoked_function_arn = f"arn:cloister:function:{self.function_name}"
        self.log_group_name = self.log_stream_name = self.function_name
        self.identity = self.client_context = None
        self._deadline = call.deadline
        _show_trace(call.headers)

    def get_remaining_time_in_millis(self):
        """Time left until the invocation is ended, in ms."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    getRemainingTimeInMillis = get_remaining_time_in_millis


def joined_headers(pairs):
    """Header pairs as a dict; repeated ones joined as RFC 9110 5.3 says."""
    headers = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def function_url_event(call, body):
    """A request as a Lambda function-URL event, payload format 2.0."""
    path, _, query = call.path.partition("?")
    headers = joined_headers(call.headers)
    host = headers.get("host", "")
    source = headers.get("x-forwarded-for", "").split(",")[0].strip()
    seconds = time.time()
    now = time.gmtime(seconds)
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "cloister",
            "domainName": host,
            "domainPrefix": host.split(".")[0],
            "http": {
                "method": call.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": source or "127.0.0.1",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": call.id,
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime(f"%d/{_MONTHS[now.tm_mon - 1]}/%Y:%H:%M:%S +0000", now),
            "timeEpoch": int(seconds * 1000),
        },
        "isBase64Encoded": False,
    }
    if "cookie" in headers:
        event["cookies"] = [cookie.strip() for cookie in headers["cookie"].split(";")]
    if query:
        from urllib.parse import parse_qsl

        parameters = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
        event["queryStringParameters"] = parameters
    if body:
        event["body"], event["isBase64Encoded"] = _event_body(headers, body)
    return event


def _event_body(headers, body):
    kind = headers.get("content-type", "").lower()
    if not kind or kind.startswith("text/") or any(part in kind for part in _TEXT_KINDS):
        try:
            return body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    from base64 import b64encode

    return b64encode(body).decode("ascii"), True


def decoded_path(path):
    """The path without its query, percent-decoded."""
    path = path.partition("?")[0]
    if "%" not in path:
        return path
    from urllib.parse import unquote

    return unquote(path, errors="replace")
