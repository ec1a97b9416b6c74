"""Sockets without a framework: options, time-outs, descriptors passed, select, poll, epoll, selectors."""

import array
import os
import select
import selectors
import socket
import threading
import time


def failed(name, run):
    try:
        print(name, run())
    except OSError as error:
        print(name, error.__class__.__name__, error.errno)


left, right = socket.socketpair()
left.settimeout(0.02)
failed("time out", lambda: left.recv(1))
left.setblocking(False)
failed("would block", lambda: left.recv(1))
right.sendall(b"peeked")
print(left.recv(3, socket.MSG_PEEK), left.recv(100))
first, second = os.pipe()
socket.send_fds(right, [b"with descriptors"], [first, second])
message, descriptors, _, _ = socket.recv_fds(left, 100, 5)
os.write(descriptors[1], b"through it")
print(message, len(descriptors), os.read(first, 100))
buffers = [bytearray(3), bytearray(5)]
right.sendmsg([b"scatter", b"ed"])
print(left.recvmsg_into(buffers)[0], buffers)
right.shutdown(socket.SHUT_WR)
left.setblocking(True)
print("end", left.recv(10), right.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
right.close()
failed("broken", lambda: [left.send(b"x") for _ in range(3)])
left.close()

server = socket.create_server(("127.0.0.1", 0), backlog=5)
client = socket.socket()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
client.connect(server.getsockname())
accepted, peer = server.accept()
print(peer == client.getsockname(), client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), accepted.getpeername() == peer)
failed("again", lambda: client.connect(server.getsockname()))
failed("in use", lambda: socket.create_server(server.getsockname()))
failed("not mine", lambda: socket.socket().bind(("192.0.2.1", 0)))
failed("not connected", lambda: socket.socket().send(b"x"))
failed("unknown name", lambda: socket.getaddrinfo("no-such-host.invalid", 1) and 0)
accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, array.array("i", [1, 0]).tobytes())
accepted.close()
failed("reset", lambda: client.recv(1))
print(socket.gethostname() != "", socket.inet_pton(socket.AF_INET6, "::1")[-1], socket.htons(1))

read, write = os.pipe()
print("select", select.select([read], [write], [], 0.01) == ([], [write], []))
poll = select.poll()
poll.register(read, select.POLLIN)
print("poll", poll.poll(10))
threading.Timer(0.01, os.write, (write, b"woken")).start()
print("poll", [events for _, events in poll.poll(60_000)], os.read(read, 100))
with select.epoll() as epoll:
    epoll.register(read, select.EPOLLIN | select.EPOLLET)
    os.write(write, b"1")
    print("epoll", [e for _, e in epoll.poll(60)], epoll.poll(0))
    os.write(write, b"2")
    print("epoll", [e for _, e in epoll.poll(60)], epoll.poll(0.01))
    os.close(write)
    print("hung up", [e for _, e in epoll.poll(60)])
os.close(read)
with selectors.DefaultSelector() as selector:
    pairs = [socket.socketpair() for _ in range(50)]
    for index, (a, b) in enumerate(pairs):
        selector.register(a, selectors.EVENT_READ, index)
        b.send(bytes([index]))
    seen = set()
    while len(seen) < 50:
        for key, _ in selector.select(60):
            seen.add(key.fileobj.recv(1)[0] == key.data and key.data)
    print("selector", type(selector).__name__, sorted(seen) == list(range(50)))
start = time.monotonic()
select.select([], [], [], 0.02)
print("waited", time.monotonic() - start >= 0.02)
six = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
with socket.create_connection(("127.0.0.1", six.getsockname()[1])) as four:
    mapped, address = six.accept()
    print("both families", address[0])
    total = 0
    sender = threading.Thread(target=lambda: (four.sendall(b"z" * 5_000_000), four.shutdown(socket.SHUT_WR)))
    sender.start()
    while data := mapped.recv(1 << 16):
        total += len(data)
    sender.join()
    print("large", total)
with open("/tmp/sent", "wb") as file:
    file.write(b"file " * 100_000)
out, back = socket.socketpair()
receiver = []
thread = threading.Thread(target=lambda: receiver.append(sum(len(d) for d in iter(lambda: back.recv(65536), b""))))
thread.start()
with open("/tmp/sent", "rb") as file:
    print("sent", out.sendfile(file))
out.close()
thread.join()
print("received", receiver)
