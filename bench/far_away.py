#!/usr/bin/env python3
"""Makes a server seem far away: a TCP proxy that delays what it carries, and carries so much a second.

    bench/far_away.py LISTEN_PORT TO_HOST:TO_PORT --delay 25 --rate 100

The delay is in milliseconds and holds for each direction, so a round trip takes twice as long; the rate is in Mbit/s, for
each direction and all connections together. Where the kernel has netem, two network namespaces and `tc qdisc add ... netem
delay 25ms rate 100mbit` do the same; this needs neither root nor a kernel module. A connection is made without delay, so
whoever counts round trips adds one.
"""

import argparse
import asyncio
import time

PART = 16 << 10


class Line:
    """One direction: what goes through it takes its time, one thing after another."""

    def __init__(self, delay, rate):
        self.delay, self.rate, self.free = delay, rate, 0.0

    def arrival(self, count):
        self.free = max(self.free, time.monotonic()) + count * 8 / self.rate
        return self.free + self.delay


async def carry(reader, writer, line, room):
    queue = asyncio.Queue(room)

    async def deliver():
        while True:
            part, when = await queue.get()
            await asyncio.sleep(max(0.0, when - time.monotonic()))
            if not part:
                break
            writer.write(part)
            await writer.drain()
        writer.close()

    delivery = asyncio.create_task(deliver())
    try:
        while part := await reader.read(PART):
            await queue.put((part, line.arrival(len(part))))
    except ConnectionError:
        pass
    await queue.put((b"", line.arrival(0)))
    await asyncio.gather(delivery, return_exceptions=True)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("listen", type=int, metavar="LISTEN_PORT")
    parser.add_argument("to", metavar="TO_HOST:TO_PORT")
    parser.add_argument("--delay", type=float, default=25, help="milliseconds, each way")
    parser.add_argument("--rate", type=float, default=100, help="Mbit/s, each way")
    arguments = parser.parse_args()
    host, port = arguments.to.rsplit(":", 1)
    up, down = (Line(arguments.delay / 1000, arguments.rate * 1e6) for _ in range(2))
    # As much as a socket's buffers would hold: what is on its way, and a quarter of a second more.
    room = int((arguments.delay / 1000 + 0.25) * arguments.rate * 1e6 / 8 / PART) + 4

    async def connected(reader, writer):
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, there_writer, up, room), carry(there_reader, writer, down, room))

    server = await asyncio.start_server(connected, "127.0.0.1", arguments.listen, limit=PART)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
