"""A WSGI app without a framework; Flask, Django and the like export the same kind of `app`."""

import hashlib


def app(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        # The body is read as it comes: it may be larger than the sandbox's memory.
        digest = hashlib.sha256()
        while piece := environ["wsgi.input"].read(65536):
            digest.update(piece)
        text = f"sha256 {digest.hexdigest()}\n"
    else:
        text = f"Hello from WSGI at {environ['PATH_INFO']}\n"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]
