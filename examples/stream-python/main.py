"""A streamed answer in Python: what an async handler yields leaves the sandbox piece by piece."""

import asyncio

TEXT = "An answer that streams has begun before it is whole."

# Stands for whatever makes an answer slow: a model, a database, another service.
PAUSE_S = 0.03


async def handler(event, context):
    try:
        for word in TEXT.split():
            yield f"{word} "
            await asyncio.sleep(PAUSE_S)
        yield "\n"
    except asyncio.CancelledError:
        # The caller hung up. Here is the place to stop what was begun for it.
        print("the caller has gone")
        raise
