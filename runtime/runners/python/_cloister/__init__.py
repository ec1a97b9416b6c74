"""The Python runner: serves invocations that come as frames at file descriptor 3 (runtime/protocol/README.md)."""
