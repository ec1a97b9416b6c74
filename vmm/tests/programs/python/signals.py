"""Signals, resources and faults."""

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import threading
import time

seen = []
for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3):
    signal.signal(number, lambda got, frame: seen.append(got))
    os.kill(os.getpid(), number)
print("handled", [int(one) for one in seen])
signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
while seen.count("alarm") < 5:
    signal.pause()
print("timer", signal.setitimer(signal.ITIMER_REAL, 0)[1])
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
signal.raise_signal(signal.SIGUSR2)
print("pending", signal.sigpending(), signal.sigwait({signal.SIGUSR2}))
print("none", signal.sigtimedwait({signal.SIGUSR2}, 0.01))
signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
print("information", signal.sigwaitinfo({signal.SIGUSR2}).si_signo)


class Interrupted(Exception):
    pass


def interrupt(*_):
    raise Interrupted


signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    time.sleep(100)
except Interrupted:
    print("interrupted")
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.01)
start = time.monotonic()
time.sleep(0.05)
print("slept on", time.monotonic() - start >= 0.05)
read, write = os.pipe()
os.set_blocking(write, False)
signal.set_wakeup_fd(write)
signal.raise_signal(signal.SIGUSR1)
print("woken", os.read(read, 10))
signal.set_wakeup_fd(-1)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.strsignal(9), signal.Signals(15).name)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupt of the keyboard")

print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 1000)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
except OSError as error:
    print("descriptors", error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
os.closerange(20, 64)
with open("/tmp/limited", "wb", buffering=0) as file:
    print("file size", file.write(b"x" * 5000))
    try:
        file.write(b"y")
    except OSError as error:
        print("file size", error.errno)
try:
    huge = bytearray(1 << 45)
except MemoryError:
    print("memory error")


def forever():
    return forever()


try:
    forever()
except RecursionError as error:
    print(error)
with tempfile.TemporaryFile("w+") as file:
    faulthandler.dump_traceback(file)
    file.seek(0)
    print("trace", "signals.py" in file.read())
sys.stdout.flush()
faulthandler.enable(open("/dev/null", "w"))
faulthandler._sigsegv()
