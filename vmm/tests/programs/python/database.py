"""SQLite in memory and in files: write-ahead log, threads, functions, backups."""

import os
import sqlite3
import threading

memory = sqlite3.connect(":memory:")
memory.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, value REAL, data BLOB)")
rows = ((i, f"name {i}", i / 7, bytes([i % 256])) for i in range(10_000))
memory.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
memory.commit()
print(memory.execute("SELECT count(*), sum(value), max(name) FROM t WHERE name LIKE '%9'").fetchone())
memory.create_function("twice", 1, lambda n: n * 2)
print(memory.execute("SELECT twice(21)").fetchone())
try:
    memory.execute("SELECT broken FROM t")
except sqlite3.OperationalError as error:
    print(error)

path = "/tmp/data.db"
with sqlite3.connect(path) as file:
    print(file.execute("PRAGMA journal_mode=WAL").fetchone())
    memory.backup(file)
    print(file.execute("PRAGMA integrity_check").fetchone())
file.close()
errors = []


def write(worker):
    connection = sqlite3.connect(path, timeout=60)
    try:
        for i in range(20):
            with connection:
                connection.execute("INSERT INTO t (name, value) VALUES (?, ?)", (f"worker {worker}", i))
    except sqlite3.Error as error:
        errors.append(error)
    connection.close()


threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print("errors", errors)
reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
print(reader.execute("SELECT count(*) FROM t WHERE name LIKE 'worker%'").fetchone())
try:
    reader.execute("DELETE FROM t")
except sqlite3.OperationalError as error:
    print(error)
reader.close()
writer = sqlite3.connect(path)
writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
writer.execute("PRAGMA journal_mode=DELETE")
writer.isolation_level = None
writer.execute("BEGIN EXCLUSIVE")
blocked = sqlite3.connect(path, timeout=0.01)
try:
    blocked.execute("INSERT INTO t (name) VALUES ('x')")
except sqlite3.OperationalError as error:
    print(error)
writer.execute("ROLLBACK")
writer.execute("DELETE FROM t")
before = os.path.getsize(path)
writer.execute("VACUUM")
print("smaller", os.path.getsize(path) < before, sorted(os.listdir("/tmp")))
writer.execute("PRAGMA mmap_size=10000000")
print("mapped", writer.execute("SELECT count(*) FROM t").fetchone())
