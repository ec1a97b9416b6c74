"""What Lambda's library of this name gives, so that functions written for SnapStart find it. A bundle may bring its own."""

_before_snapshot = []
_after_restore = []


def register_before_snapshot(func, *args, **kwargs):
    """Has `func` called before the snapshot; the last registered one first."""
    _before_snapshot.append((func, args, kwargs))
    return func


def register_after_restore(func, *args, **kwargs):
    """Has `func` called after each restore; the first registered one first."""
    _after_restore.append((func, args, kwargs))
    return func


def get_before_snapshot():
    """(function, arguments, named arguments), in the order of registration."""
    return _before_snapshot


def get_after_restore():
    """(function, arguments, named arguments), in the order of registration."""
    return _after_restore
