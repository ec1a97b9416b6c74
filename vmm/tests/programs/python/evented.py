"""asyncio: streams, datagrams, Unix sockets, threads, signals, time-outs, sub-processes refused."""

import asyncio
import os
import signal
import socket


class Upper(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data.upper(), address)


class Once(asyncio.DatagramProtocol):
    def __init__(self, answer):
        self.answer = answer

    def connection_made(self, transport):
        transport.sendto(b"datagram")

    def datagram_received(self, data, address):
        self.answer.set_result(data)


async def echo(reader, writer):
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()
    writer.close()


async def send_and_hear(reader, writer, size):
    writer.write(b"x" * size)
    writer.write_eof()
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    return len(data)


async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    sizes = [send_and_hear(*await asyncio.open_connection(host, port), 1000 * i) for i in range(40)]
    print("tcp", sum(await asyncio.gather(*sizes)))
    server.close()
    await server.wait_closed()
    try:
        await asyncio.open_connection(host, port)
    except OSError as error:
        print("refused", error.errno)

    unix = await asyncio.start_unix_server(echo, "/tmp/echo.sock")
    print("unix", await send_and_hear(*await asyncio.open_unix_connection("/tmp/echo.sock"), 1_000_000))
    unix.close()

    transport, _ = await loop.create_datagram_endpoint(Upper, local_addr=("127.0.0.1", 0))
    answer = loop.create_future()
    address = transport.get_extra_info("sockname")
    other, _ = await loop.create_datagram_endpoint(lambda: Once(answer), remote_addr=address)
    print("udp", await answer)
    transport.close()
    other.close()

    try:
        async with asyncio.timeout(0.02):
            await asyncio.sleep(100)
    except TimeoutError:
        print("timed out")
    print("in threads", await asyncio.gather(*(asyncio.to_thread(pow, 2, n) for n in range(10))))
    came = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, came.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await came.wait()
    print("signal")

    line = asyncio.Queue(3)

    async def produce():
        for i in range(100):
            await line.put(i)
        await line.put(None)

    async def consume():
        total = 0
        while (item := await line.get()) is not None:
            total += item
        return total

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        consumed = group.create_task(consume())
    print("queue", consumed.result())
    task = asyncio.create_task(asyncio.sleep(100))
    await asyncio.sleep(0)
    task.cancel()
    print("cancelled", (await asyncio.gather(task, return_exceptions=True))[0].__class__.__name__)

    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    heard = asyncio.create_task(loop.sock_recv(left, 100))
    await loop.sock_sendall(right, b"by the loop")
    print("socket", await heard)
    left.close()
    right.close()
    read, write = os.pipe()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb"))
    os.write(write, b"by a pipe\n")
    print("pipe", await reader.readline())
    os.close(write)
    print([address[4][0] for address in await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM, family=socket.AF_INET)])
    print("ordered", await order())


async def order():
    seen = []
    loop = asyncio.get_running_loop()
    # From one moment, however long it takes to say so: what is due goes in the order of its times.
    begun = loop.time()
    for i, delay in enumerate([0.03, 0.01, 0.02]):
        loop.call_at(begun + delay, seen.append, i)
    loop.call_soon(seen.append, "soon")
    while len(seen) < 4:
        await asyncio.sleep(0.005)
    return seen


asyncio.run(main())
