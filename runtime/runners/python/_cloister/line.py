"""Calls that came behind others (INVOKE's `behind`): they begin one after the other."""

from collections import deque
from threading import Lock


class Line:
    """Frames come on one thread and calls end on others. A call that is to begin is given to whoever asked, and not begun here."""

    def __init__(self):
        self._lock = Lock()
        self._waiting = deque()
        self._under_way = 0

    def take(self, call):
        """Whether the call begins now. Otherwise `left` gives it when its turn has come."""
        with self._lock:
            if call.behind and (self._under_way > 0 or self._waiting):
                self._waiting.append(call)
                return False
            self._under_way += 1
            return True

    def left(self):
        """The code of one that had begun has ended. Gives the next if that is to begin, or None."""
        with self._lock:
            self._under_way -= 1
            if self._under_way > 0 or not self._waiting:
                return None
            self._under_way += 1
            return self._waiting.popleft()

    def leave(self, call):
        """Takes out one that waits; False if it does not."""
        with self._lock:
            try:
                self._waiting.remove(call)
            except ValueError:
                return False
            return True
