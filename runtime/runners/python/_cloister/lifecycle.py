"""What a function wants to be told of its snapshot: before it is taken, after each restore, and how to warm itself up.

Two ways lead here: an object (or dict) `lifecycle` in the entry's module, and the decorators of Lambda's snapshot_restore_py.
"""

import sys

from .faults import LoadFailed

# How long an async after_restore may take, s. Other code cannot be stopped.
AFTER_RESTORE_SECONDS = 10
_REGISTRY = "snapshot_restore_py"


class Lifecycle:
    """Hooks in the order in which they run; each takes no arguments."""

    __slots__ = ("warm_up", "before_snapshot", "after_restore")

    def __init__(self, module):
        own = getattr(module, "lifecycle", None)
        self.warm_up = _own(own, "warm_up")
        # As with Lambda: what was registered last is told first before a snapshot, and last after a restore.
        self.before_snapshot = _own(own, "before_snapshot") + _registered("get_before_snapshot")[::-1]
        self.after_restore = _registered("get_after_restore") + _own(own, "after_restore")


def _own(lifecycle, name):
    hook = lifecycle.get(name) if isinstance(lifecycle, dict) else getattr(lifecycle, name, None)
    if hook is None:
        return []
    if not callable(hook):
        raise LoadFailed(f"lifecycle.{name} is a {type(hook).__name__}. Make it a function.")
    return [_Hook(f"lifecycle.{name}", hook)]


def _registered(getter):
    registry = sys.modules.get(_REGISTRY)
    name = getter.replace("get_", "register_")
    return [_Hook(name, *entry) for entry in getattr(registry, getter, list)()]


class _Hook:
    __slots__ = ("name", "function", "arguments", "named")

    def __init__(self, name, function, arguments=(), named=None):
        self.name = name
        self.function = function
        self.arguments = arguments
        self.named = named or {}

    def __call__(self):
        """Gives what the function does, which may have to be awaited."""
        return self.function(*self.arguments, **self.named)


def run(hooks, finish):
    """Runs hooks one after the other; `finish` completes what is awaitable."""
    for hook in hooks:
        try:
            result = hook()
            if hasattr(result, "__await__"):
                finish(result)
        except Exception as error:
            raise name_in(error, hook) from None


async def run_async(hooks, seconds):
    """The same in a running event loop, each within `seconds`."""
    import asyncio

    for hook in hooks:
        try:
            result = hook()
            if hasattr(result, "__await__"):
                await asyncio.wait_for(result, seconds)
        except Exception as error:
            raise name_in(error, hook) from None


def name_in(error, hook):
    """The same error, which says where it comes from."""
    text = f"{hook.name}: {error}" if str(error) else hook.name
    try:
        error.args = (text,)
    except Exception:
        pass  # One that keeps its arguments is told as it is.
    return error
