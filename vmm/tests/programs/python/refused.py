"""Programs and processes cannot be started: each way of trying raises what a program can handle."""

import asyncio
import errno
import multiprocessing
import os
import pty
import subprocess


def refused(name, run):
    try:
        print(name, run())
    except OSError as error:
        print(name, error.__class__.__name__, errno.errorcode.get(error.errno, str(error)))


def job():
    pass


refused("subprocess", lambda: subprocess.run(["/usr/bin/python3", "-c", ""], check=True))
refused("shell", lambda: subprocess.check_output("true", shell=True))
refused("system", lambda: os.system("true"))
refused("popen", lambda: os.popen("true").read())
refused("fork", os.fork)
refused("spawn", lambda: os.posix_spawn("/usr/bin/python3", ["python3"], {}))
refused("exec", lambda: os.execv("/usr/bin/python3", ["python3"]))
refused("pty", pty.fork)
for method in ("fork", "spawn", "forkserver"):
    refused(method, multiprocessing.get_context(method).Process(target=job).start)
refused("pool", lambda: multiprocessing.get_context("fork").Pool(2))
refused("wait", os.wait)


async def main():
    await asyncio.create_subprocess_exec("/usr/bin/python3")


refused("asyncio", lambda: asyncio.run(main()))
print("still here", multiprocessing.cpu_count() > 0)
