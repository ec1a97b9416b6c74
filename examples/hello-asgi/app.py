"""An ASGI app without a framework; Starlette, FastAPI and the like export the same kind of `app`."""

import asyncio
import time


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["path"] == "/ticks":
        await ticks(send)
    else:
        uptime_ms = (time.monotonic() - scope["state"]["started"]) * 1000
        text = f"Hello from ASGI at {scope['path']}, up for {uptime_ms:.0f} ms\n"
        await start(send)
        await send({"type": "http.response.body", "body": text.encode()})


async def lifespan(scope, receive, send):
    """Startup runs once per sandbox, before the first request; its state is in every request's scope."""
    while (await receive())["type"] != "lifespan.startup":
        pass
    scope["state"]["started"] = time.monotonic()
    await send({"type": "lifespan.startup.complete"})
    await receive()


async def ticks(send):
    """Server-sent events: each leaves the moment it is sent."""
    await start(send, b"text/event-stream")
    for count in range(5):
        await send({"type": "http.response.body", "body": b"data: tick %d\n\n" % count, "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b""})


async def start(send, content_type=b"text/plain; charset=utf-8"):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
