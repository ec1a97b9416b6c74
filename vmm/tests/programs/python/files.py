"""Files, folders and paths."""

import errno
import fcntl
import filecmp
import fnmatch
import glob
import io
import mmap
import os
import pathlib
import shutil
import stat
import tempfile
import threading
import zipfile

os.chdir("/tmp")
os.umask(0o022)


def failed(name, run):
    try:
        print(name, run())
    except OSError as error:
        print(name, errno.errorcode[error.errno])


root = pathlib.Path("tree")
(root / "a" / "b").mkdir(parents=True)
(root / "one.txt").write_text("first\nsecond\n", encoding="utf8")
(root / "a" / "two.bin").write_bytes(bytes(range(256)))
(root / "link").symlink_to("one.txt")
(root / "a" / "hard").hardlink_to(root / "one.txt")
print(sorted(str(path) for path in root.rglob("*")), (root / "link").read_text(), (root / "one.txt").stat().st_nlink)
print((root / "link").is_symlink(), (root / "link").resolve().name, root.joinpath("a/../one.txt").exists())
for folder, folders, files in sorted(os.walk("tree")):
    print(folder, sorted(folders), sorted(files))
with os.scandir("tree") as entries:
    print(sorted((entry.name, entry.is_dir(), entry.is_symlink(), entry.stat(follow_symlinks=False).st_size > 0) for entry in entries if not entry.is_dir()))
shutil.copytree("tree", "copy", symlinks=True)
print(filecmp.dircmp("tree", "copy").diff_files, os.readlink("copy/link"))
shutil.move("copy/a", "copy/moved")
print(sorted(os.listdir("copy")), glob.glob("copy/**/*.bin", recursive=True), fnmatch.filter(["a.py", "b.c"], "*.py"))
shutil.make_archive("packed", "zip", "tree")
print(sorted(zipfile.ZipFile("packed.zip").namelist()))
shutil.make_archive("packed", "gztar", "tree")
shutil.unpack_archive("packed.tar.gz", "unpacked")
print(sorted(os.listdir("unpacked")), os.path.islink("unpacked/link"))
shutil.rmtree("copy")
failed("removed", lambda: os.stat("copy"))
failed("not empty", lambda: os.rmdir("tree"))
failed("not a folder", lambda: os.listdir("tree/one.txt"))
failed("a folder", lambda: open("tree"))
failed("read-only", lambda: open("/etc/new", "w"))
failed("exists", lambda: os.mkdir("tree"))
failed("too long", lambda: os.stat("x" * 256))
failed("path too long", lambda: os.stat("x/" * 3000))
os.symlink("round", "round")
failed("round", lambda: os.stat("round"))
failed("descriptor", lambda: os.fstat(500))
failed("seek", lambda: os.lseek(os.pipe()[0], 0, 0))
failed("rename into itself", lambda: os.rename("tree", "tree/a/x"))
failed("device", lambda: os.rename("tree", "/dev/tree"))

os.chmod("tree/one.txt", 0o604)
os.utime("tree/one.txt", ns=(123_456_789_012, 987_654_321_098))
status = os.stat("tree/one.txt")
print(stat.filemode(status.st_mode), status.st_mtime_ns, status.st_atime, status.st_size, os.access("tree/one.txt", os.R_OK))
descriptor = os.open("tree", os.O_RDONLY | os.O_DIRECTORY)
print(sorted(os.listdir(descriptor)), os.stat("one.txt", dir_fd=descriptor).st_size)
os.rename("one.txt", "renamed", src_dir_fd=descriptor, dst_dir_fd=descriptor)
os.fsync(descriptor)
os.close(descriptor)

with open("data", "w+b", buffering=0) as file:
    print(os.pwrite(file.fileno(), b"0123456789", 100), os.pread(file.fileno(), 4, 98), os.writev(file.fileno(), [b"ab", b"cd"]))
    os.posix_fallocate(file.fileno(), 0, 5000)
    print(os.fstat(file.fileno()).st_size, os.lseek(file.fileno(), -1, os.SEEK_END))
    os.ftruncate(file.fileno(), 50)
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX)
    print(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE, os.get_inheritable(file.fileno()))
    file.truncate(1 << 20)
    with mmap.mmap(file.fileno(), 0) as mapped:
        mapped[5000:5005] = b"bytes"
        mapped.flush()
        print(mapped.find(b"bytes"), len(mapped), os.pread(file.fileno(), 5, 5000))
        mapped.resize(1 << 16)
        print(len(mapped), os.fstat(file.fileno()).st_size)
    print(os.copy_file_range(file.fileno(), os.open("copied", os.O_WRONLY | os.O_CREAT), 100, 5000))
    print(pathlib.Path("copied").read_bytes()[:5])
private = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
private.write(b"anonymous")
private.madvise(mmap.MADV_DONTNEED)
print(private[:4])

with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as named, tempfile.TemporaryFile() as hidden:
    named.write(b"x" * 10)
    named.flush()
    hidden.write(b"hidden")
    hidden.seek(0)
    print(os.path.getsize(named.name), hidden.read(), tempfile.gettempdir())
with tempfile.SpooledTemporaryFile(max_size=10) as spooled:
    spooled.write(b"more than ten bytes")
    spooled.seek(5)
    print(spooled.read())
with open("lines", "w", newline="\r\n") as text:
    text.writelines(f"{n}\n" for n in range(1000))
with open("lines", newline=None) as text:
    text.seek(100)
    print(text.readline(), text.tell(), sum(1 for _ in text))
print(io.TextIOWrapper(io.BytesIO("é".encode("latin1")), "latin1").read(), os.path.getsize("lines"))
os.mkfifo("fifo")
heard = set()
for _ in range(100):
    # The writer may be done before the reader has seen it open the other end.
    writer = threading.Thread(target=lambda: open("fifo", "w").write("through a name"))
    writer.start()
    heard.add(open("fifo").read())
    writer.join()
print(heard)
with open("/dev/zero", "rb") as zero, open("/dev/urandom", "rb") as random, open("/dev/null", "wb") as null:
    print(zero.read(5), len(set(random.read(5000))), null.write(b"lost"))
failed("full", lambda: open("/dev/full", "w", 1).write("x\n"))
print(os.path.realpath("/proc/self/cwd"), os.readlink("/proc/self/exe"), len(os.listdir("/proc/self/fd")) > 2)
print(shutil.disk_usage("/tmp").total > 0, os.statvfs("/tmp").f_namemax, shutil.which("python3"), os.path.samefile("/tmp", "."))
