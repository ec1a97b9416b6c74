"""Finds and imports the function."""

import os
import sys

from .faults import LoadFailed, NoHandler

DEFAULT_ENTRIES = ("main.py", "handler.py", "app.py", "index.py", "lambda_function.py")
_DEFAULT_NAMES = ("handler", "lambda_handler", "app", "application")
_OFFERED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "offered")
_CO_VARARGS = 0x04
_CO_COROUTINE = 0x80
_CO_ITERABLE_COROUTINE = 0x100
_CO_ASYNC_GENERATOR = 0x200


class Target:
    """What is called. `kind` is handler, asgi or wsgi."""

    __slots__ = ("call", "kind", "is_async", "arguments", "module")

    def __init__(self, call, kind, is_async, arguments):
        self.call = call
        self.kind = kind
        self.is_async = is_async
        # How many of (event, context) the handler takes.
        self.arguments = arguments
        # Where it was found.
        self.module = None


def load(root, entry):
    """Imports the entry and finds its handler or app. `entry` is `file.py` or `file.py:name`, or empty."""
    path, name = _find_entry(root, entry or "")
    prepare_path(root, os.path.dirname(path))
    sys.argv[:] = [path]
    module = _import_file(path)
    target = _find_target(module, os.path.relpath(path, root), name)
    target.module = module
    return target


def prepare_path(root, entry_folder):
    """Puts the function's folders before the standard library."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    vendored = [
        os.path.join(root, folder)
        for folder in (
            "site-packages",
            "python",
            "vendor",
            "vendored",
            f"lib/{version}/site-packages",
            f".venv/lib/{version}/site-packages",
            f"python/lib/{version}/site-packages",
        )
    ]
    folders = [entry_folder, root, *filter(os.path.isdir, vendored)]
    folders += [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    sys.path[:0] = [path for at, path in enumerate(folders) if path not in folders[:at]]
    # What the platform offers comes last: a bundle's own goes before it.
    sys.path.append(_OFFERED)
    for folder in folders[1:]:
        if os.path.isdir(folder) and any(name.endswith(".pth") for name in os.listdir(folder)):
            import site

            site.addsitedir(folder, set(sys.path))


def _find_entry(root, entry):
    file, _, name = entry.partition(":")
    if not file:
        for default in DEFAULT_ENTRIES:
            if os.path.isfile(os.path.join(root, default)):
                return os.path.join(root, default), name
        there = ", ".join(sorted(os.listdir(root))[:10]) or "nothing"
        raise NoHandler(
            f"The bundle has no {DEFAULT_ENTRIES[0]}, handler.py or app.py, only {there}. "
            "Set entry in cloister.json to the file with the handler."
        )
    path = os.path.normpath(os.path.join(root, file))
    if not path.startswith(os.path.join(root, "")):
        raise LoadFailed(f"The entry {entry} is outside the function's folder. Name a file inside it.")
    if not os.path.isfile(path):
        raise NoHandler(f"The entry {file} is not in the bundle. Set entry in cloister.json.")
    return path, name


def _import_file(path):
    from importlib import util

    name = os.path.basename(path).removesuffix(".py")
    if name in sys.modules or not name.isidentifier():
        # Never replace a module of the standard library that is loaded already, such as `code` or `types`.
        name = f"function_{''.join(c if c.isalnum() else '_' for c in name)}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadFailed(f"{os.path.basename(path)} is no Python file. Name the entry *.py.")
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _find_target(module, file, name):
    for candidate in (name,) if name else _DEFAULT_NAMES:
        value = getattr(module, candidate, None)
        if value is None:
            continue
        if not callable(value):
            raise NoHandler(f"{candidate} in {file} is a {type(value).__name__} and cannot be called.")
        return _describe(value, candidate)
    wanted = name or "handler(event, context), app (ASGI or WSGI)"
    raise NoHandler(f"{file} defines no {wanted}. Add it, or set entry in cloister.json.")


def _describe(value, name):
    code, skip = _code_of(value)
    flags = code.co_flags if code else 0
    is_async = bool(flags & (_CO_COROUTINE | _CO_ITERABLE_COROUTINE | _CO_ASYNC_GENERATOR))
    count = code.co_argcount - skip if code else 2
    names = _parameter_names(code, skip)
    if names[:3] == ("scope", "receive", "send") or (is_async and count == 3):
        return Target(value, "asgi", True, 0)
    if name in ("app", "application") or names[:2] == ("environ", "start_response"):
        return Target(value, "asgi" if is_async else "wsgi", is_async, 0)
    if flags & _CO_VARARGS:
        count = 2
    return Target(value, "handler", is_async, min(max(count, 0), 2))


def _parameter_names(code, skip):
    return code.co_varnames[skip : code.co_argcount] if code else ()


def _code_of(value):
    """Code object behind a callable and how many of its parameters are bound already."""
    skip = 0
    for _ in range(8):
        if hasattr(value, "__code__"):
            return value.__code__, skip
        if hasattr(value, "__func__"):
            value = value.__func__
            skip += 1
        elif hasattr(value, "func") and hasattr(value, "args"):
            skip += len(value.args)
            value = value.func
        elif not isinstance(value, type) and hasattr(type(value), "__call__"):
            value = type(value).__call__
            skip += 1
            if not hasattr(value, "__code__") and not hasattr(value, "__func__"):
                return None, 0
        else:
            return None, 0
    return None, 0
