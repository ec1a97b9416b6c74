"""The process, its clocks and memory, logging, garbage, code made at run time, a test suite within."""

import ast
import atexit
import code
import compileall
import contextlib
import cProfile
import dis
import gc
import getpass
import grp
import importlib
import importlib.util
import inspect
import io
import linecache
import logging
import logging.handlers
import os
import platform
import pwd
import pstats
import runpy
import sched
import site
import symtable
import sys
import sysconfig
import time
import tokenize
import tracemalloc
import unittest
import warnings
import zipimport

print(sys.platform, os.name, sys.byteorder, platform.system(), platform.machine(), sys.executable, sys.argv[0])
print(os.getpid() > 0, os.getuid(), os.geteuid(), os.getcwd(), os.environ["HOME"], os.environ.get("NOTHING"), os.cpu_count() > 0)
print(os.getpgrp() > 0, os.getloadavg()[0] >= 0, len(os.sched_getaffinity(0)) > 0, os.uname().sysname, os.nice(0), os.times().user >= 0)
print(pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name, getpass.getuser(), os.isatty(0), os.sysconf("SC_PAGE_SIZE"), os.confstr("CS_PATH"))
print(len(os.urandom(100)), len(os.getrandom(10)), os.get_terminal_size.__name__, os.strerror(2), sys.getfilesystemencoding())
read, write = os.pipe2(os.O_NONBLOCK)
try:
    os.read(read, 1)
except BlockingIOError as error:
    print(error.errno)
print(os.dup2(write, 50), os.eventfd_read(os.eventfd(7)), os.memfd_create("m") > 0, os.get_blocking(read))
for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME, time.CLOCK_PROCESS_CPUTIME_ID, time.CLOCK_THREAD_CPUTIME_ID):
    first = time.clock_gettime_ns(clock)
    print(clock, time.clock_gettime_ns(clock) >= first, 0 < time.clock_getres(clock) <= 0.01)
print(abs(time.time() - time.clock_gettime(0)) < 5, time.perf_counter_ns() > 0, time.gmtime(0)[:6], time.tzname, time.strftime("%c", time.gmtime(0)))
ran = []
timetable = sched.scheduler()
# From one moment, however long it takes to say so.
begun = time.monotonic()
for delay in (0.02, 0.01, 0.03):
    timetable.enterabs(begun + delay, 1, ran.append, (delay,))
timetable.run()
print(ran)

stream = io.StringIO()
logger = logging.getLogger("programs")
logger.addHandler(logging.StreamHandler(stream))
logger.addHandler(logging.handlers.RotatingFileHandler("/tmp/log", maxBytes=2000, backupCount=2))
logger.setLevel(logging.INFO)
for i in range(200):
    logger.info("message %d", i)
logger.debug("unseen")
print(len(stream.getvalue().splitlines()), sorted(name for name in os.listdir("/tmp") if name.startswith("log")))


class Node:
    pass


gc.collect()
for _ in range(1000):
    a, b = Node(), Node()
    a.other, b.other = b, a
print(gc.collect() > 0, gc.isenabled(), len(gc.get_stats()))
tracemalloc.start()
kept = [bytes(1000) for _ in range(1000)]
print(tracemalloc.get_traced_memory()[0] > 1_000_000, tracemalloc.take_snapshot().statistics("lineno")[0].count >= 1000)
tracemalloc.stop()
del kept
large = bytearray(100 << 20)
large[:: 1 << 20] = b"x" * 100
print(large.count(b"x"))
del large
words = {f"k{i}": [i] * 3 for i in range(200_000)}
print(len(words), sys.getsizeof(words) > 1_000_000)
del words

with open("/tmp/made.py", "w") as file:
    file.write("def answer():\n    return 42\nNAME = __name__\n")
sys.path.insert(0, "/tmp")
import made

print(made.answer(), made.NAME, runpy.run_path("/tmp/made.py")["NAME"], compileall.compile_file("/tmp/made.py", quiet=1))
print(inspect.getsource(made.answer).strip().splitlines()[-1], linecache.getline("/tmp/made.py", 1).strip())
print(importlib.reload(made) is made, importlib.util.find_spec("none"), ast.dump(ast.parse("1+x", mode="eval").body))
print(eval(compile("[n*n for n in range(5)]", "made", "eval")), len(list(dis.get_instructions("a = b"))) > 2)
print(symtable.symtable("x = 1", "s", "exec").get_identifiers(), [t.string for t in tokenize.generate_tokens(io.StringIO("a+1").readline)][:3])
profile = cProfile.Profile()
profile.runcall(sorted, range(1000))
print(pstats.Stats(profile, stream=io.StringIO()).total_calls > 0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warnings.warn("a warning", stacklevel=1)
    print(caught[0].message)
output = io.StringIO()
with contextlib.redirect_stdout(output), contextlib.suppress(ValueError):
    print("captured")
    raise ValueError
print(output.getvalue().strip(), code.compile_command("1 +") is None if False else "compiled")


class Cases(unittest.TestCase):
    def test_passes(self):
        with self.subTest("inner"):
            self.assertAlmostEqual(0.1 + 0.2, 0.3)

    def test_fails(self):
        self.assertEqual(1, 2)

    @unittest.skip("not now")
    def test_skipped(self):
        pass


result = unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(Cases))
print(result.testsRun, len(result.failures), len(result.skipped), site.ENABLE_USER_SITE, sysconfig.get_path("stdlib"))
atexit.register(print, "at the end")
sys.stderr.write("to the other stream\n")
print(sys.stdin.read() == "")
sys.exit(3)
