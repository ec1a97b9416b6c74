"""Foreign code by ctypes: the C library, callbacks, structures, errors."""

import ctypes
import ctypes.util

c = ctypes.CDLL("libc.so.6", use_errno=True)
print(c.strlen(b"twelve chars"), c.abs(-5))
c.strtod.restype = ctypes.c_double
print(c.strtod(b"2.5", None))
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 8)(5, 1, 8, 2, 9, 3, 7, 4)
c.qsort(numbers, len(numbers), ctypes.sizeof(ctypes.c_int), COMPARE(lambda a, b: a[0] - b[0]))
print(list(numbers))


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


now = Timespec()
print(c.clock_gettime(1, ctypes.byref(now)), now.seconds >= 0, ctypes.sizeof(Timespec))
print(c.open(b"/none", 0), ctypes.get_errno())
buffer = ctypes.create_string_buffer(64)
print(c.snprintf(buffer, 64, b"%d and %s", 5, b"text"), buffer.value)
math = ctypes.CDLL("libm.so.6")
math.pow.restype = ctypes.c_double
math.pow.argtypes = [ctypes.c_double, ctypes.c_double]
print(math.pow(2, 0.5))
print(ctypes.string_at(ctypes.addressof(buffer), 5), ctypes.c_uint8(300).value, bytes(ctypes.c_uint32(1)))
try:
    c.no_such_function
except AttributeError as error:
    print(str(error).split(":")[-1].strip())
try:
    ctypes.CDLL("libnone.so")
except OSError as error:
    print(str(error).split(":")[0])
ctypes.pythonapi.PyLong_FromLong.restype = ctypes.py_object
print(ctypes.pythonapi.PyLong_FromLong(42))
address = c.malloc
address.restype = ctypes.c_void_p
place = address(1 << 20)
ctypes.memset(place, 7, 1 << 20)
print(ctypes.string_at(place + 1000, 3))
c.free(ctypes.c_void_p(place))
print(c.syscall(39) == __import__("os").getpid())
