"""Threads and what keeps them apart: locks, conditions, queues, pools, timers, local state."""

import concurrent.futures
import contextvars
import queue
import sys
import threading
import time

total = 0
lock = threading.Lock()


def count():
    global total
    for _ in range(5000):
        with lock:
            total += 1


threads = [threading.Thread(target=count) for _ in range(16)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print("counted", total)

condition = threading.Condition()
turn = 0
order = []


def take_turns(me):
    global turn
    for _ in range(50):
        with condition:
            condition.wait_for(lambda: turn % 3 == me)
            order.append(me)
            turn += 1
            condition.notify_all()


threads = [threading.Thread(target=take_turns, args=(i,)) for i in range(3)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print("turns", order == [0, 1, 2] * 50)

barrier = threading.Barrier(4)
places = []
threads = [threading.Thread(target=lambda: places.append(barrier.wait())) for _ in range(4)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print("barrier", sorted(places))

semaphore = threading.BoundedSemaphore(2)
print("semaphore", semaphore.acquire(timeout=0.01), semaphore.acquire(False), semaphore.acquire(timeout=0.02))
event = threading.Event()
print("event", event.wait(0.01))
threading.Timer(0.01, event.set).start()
print("event", event.wait(60))
again = threading.RLock()
with again, again:
    print("again")

jobs = queue.Queue(maxsize=3)
results = queue.SimpleQueue()


def work():
    while (job := jobs.get()) is not None:
        results.put(job * job)
        jobs.task_done()
    jobs.task_done()


threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for one in threads:
    one.start()
for job in range(200):
    jobs.put(job)
for _ in threads:
    jobs.put(None)
jobs.join()
print("queue", sum(results.get() for _ in range(200)))
try:
    queue.PriorityQueue().get(timeout=0.01)
except queue.Empty:
    print("empty")

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print("pool", sum(pool.map(lambda n: n * 2, range(500))))
    futures = {pool.submit(divmod, 100, n): n for n in range(5)}
    print("futures", sorted(str(one.exception() or one.result()) for one in concurrent.futures.as_completed(futures)))

local = threading.local()
local.value = "main"
seen = []
thread = threading.Thread(target=lambda: seen.append(hasattr(local, "value")), name="named")
thread.start()
thread.join()
print("local", seen, local.value, thread.name, thread.is_alive(), threading.get_native_id() > 0)

variable = contextvars.ContextVar("v", default=1)
context = contextvars.copy_context()
context.run(variable.set, 5)
print("context", variable.get(), context[variable])

threading.excepthook = lambda args: print("thread died of", args.exc_type.__name__)
thread = threading.Thread(target=lambda: 1 // 0)
thread.start()
thread.join()


def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)


threading.stack_size(64 << 20)
sys.setrecursionlimit(50_000)
thread = threading.Thread(target=lambda: print("deep", deep(40_000)))
thread.start()
thread.join()
threading.stack_size(0)
threads = [threading.Thread(target=event.wait) for _ in range(150)]
event.clear()
for one in threads:
    one.start()
print("many", threading.active_count() > 150)
event.set()
for one in threads:
    one.join()
start = time.monotonic()
time.sleep(0.02)
print("slept", time.monotonic() - start >= 0.02)
