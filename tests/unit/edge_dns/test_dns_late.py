"""Answers over TCP that have to be looked up first: in order, and without holding up others."""

from __future__ import annotations

import asyncio
import socket

from services.edge.dns.streams import Streams
from services.runtime.udp import bound_socket


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


class Late:
    """Answers a question that begins with ``late`` when it is told to, all others at once."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[bytes]] = []

    def answer(self, data: bytes, address: str, local: str):
        if not data.startswith(b"late"):
            return data.upper()
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    async def asked(self, count: int) -> None:
        while len(self.waiting) < count:
            await asyncio.sleep(0.005)


def run(work):
    async def inside():
        late = Late()
        streams = Streams(answer=late.answer, monotonic_s=lambda: 0.0)
        sock = bound_socket("127.0.0.1", 0, socket.SOCK_STREAM)
        place = sock.getsockname()
        await streams.listen(sock)
        try:
            async with asyncio.timeout(60):
                return await work(late, place)
        finally:
            await streams.close()

    return asyncio.run(inside())


async def read(reader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


def test_what_was_asked_behind_it_waits_and_comes_in_order() -> None:
    async def work(late: Late, place):
        reader, writer = await asyncio.open_connection(*place)
        writer.write(framed(b"one") + framed(b"late") + framed(b"two") + framed(b"late too"))
        first = await read(reader)
        await late.asked(1)
        writer.write(framed(b"three"))
        late.waiting[0].set_result(b"found")
        more = [await read(reader), await read(reader)]
        await late.asked(2)
        late.waiting[1].set_result(b"found too")
        more += [await read(reader), await read(reader)]
        writer.close()
        return [first, *more]

    assert run(work) == [b"ONE", b"found", b"TWO", b"found too", b"THREE"]


def test_one_that_waits_holds_up_nobody_else() -> None:
    async def work(late: Late, place):
        _, waiting = await asyncio.open_connection(*place)
        waiting.write(framed(b"late"))
        await late.asked(1)
        reader, writer = await asyncio.open_connection(*place)
        writer.write(framed(b"quick"))
        answer = await read(reader)
        waiting.close()
        writer.close()
        return answer

    assert run(work) == b"QUICK"


def test_an_answer_that_fails_ends_the_connection_and_one_for_nobody_is_dropped() -> None:
    async def work(late: Late, place):
        reader, writer = await asyncio.open_connection(*place)
        writer.write(framed(b"late"))
        await late.asked(1)
        late.waiting[0].cancel()
        ended = await reader.read()
        _, gone = await asyncio.open_connection(*place)
        gone.write(framed(b"late"))
        await late.asked(2)
        gone.transport.abort()
        await asyncio.sleep(0.05)
        late.waiting[1].set_result(b"found")
        await asyncio.sleep(0)
        writer.close()
        return ended

    assert run(work) == b""
