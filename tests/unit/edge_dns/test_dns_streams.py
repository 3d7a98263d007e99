"""DNS-09: TCP, and those who hold connections without asking anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from services.edge.dns.streams import IDLE_S, Streams, owner_of
from services.runtime.udp import bound_socket
from tests.unit.edge_dns.dns_kit import LONG, STREAM, Small, query


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


class Bench:
    """Streams on a port of its own, and a clock that is set by hand."""

    def __init__(self, **limits) -> None:
        self.now_s = 0.0
        self.small = Small()
        self.streams = Streams(
            answer=lambda data, address, local: self.small.raw(data, STREAM),
            monotonic_s=lambda: self.now_s,
            **limits,
        )

    @contextlib.asynccontextmanager
    async def open(self):
        sock = bound_socket("127.0.0.1", 0, socket.SOCK_STREAM)
        self.place = sock.getsockname()
        await self.streams.listen(sock)
        try:
            yield self
        finally:
            await self.streams.close()

    async def connect(self):
        return await asyncio.open_connection(*self.place)

    async def settled(self, count: int) -> None:
        while self.streams.count != count:
            await asyncio.sleep(0.005)


def run(work, **limits):
    async def inside():
        async with asyncio.timeout(60), Bench(**limits).open() as bench:
            return await work(bench)

    return asyncio.run(inside())


async def answer_on(reader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


async def is_closed(reader) -> bool:
    try:
        return await reader.read(100) == b""
    except ConnectionError:
        return True


def test_dns_09_queries_that_come_together_or_in_pieces_are_answered_in_order() -> None:
    async def work(bench):
        reader, writer = await bench.connect()
        asked = [query(LONG, message_id=n) for n in range(20)]
        stream = b"".join(map(framed, asked))
        for at in range(0, len(stream), 7):
            writer.write(stream[at : at + 7])
            await writer.drain()
        return [(await answer_on(reader))[:2] for _ in asked]

    assert run(work) == [n.to_bytes(2, "big") for n in range(20)]


def test_dns_09_who_closes_its_side_still_gets_its_answers() -> None:
    async def work(bench):
        reader, writer = await bench.connect()
        writer.write(framed(query(LONG)) * 3)
        writer.write_eof()
        return [len(await answer_on(reader)) for _ in range(3)], await is_closed(reader)

    answers, closed = run(work)
    assert len(set(answers)) == 1
    assert closed


def test_dns_09_a_length_of_nothing_and_what_is_no_query_close_the_connection() -> None:
    async def work(bench):
        closed = []
        for junk in (b"\0\0", b"\0\5hello", framed(b"\0\1\x80\0" + bytes(20))):
            reader, writer = await bench.connect()
            writer.write(junk)
            closed.append(await is_closed(reader))
        return closed

    assert run(work) == [True, True, True]


def test_dns_09_a_length_beyond_the_data_waits_and_is_ended_after_ten_seconds() -> None:
    async def work(bench):
        reader, writer = await bench.connect()
        writer.write(b"\xff\xff" + query(LONG))
        await bench.settled(1)
        bench.now_s = IDLE_S - 0.1
        bench.streams.sweep()
        assert bench.streams.count == 1
        bench.now_s = IDLE_S + 0.1
        bench.streams.sweep()
        return await is_closed(reader), bench.streams.count, bench.streams.timed_out_count

    assert run(work) == (True, 0, 1)


def test_dns_09_who_dribbles_a_byte_at_a_time_is_not_asking() -> None:
    async def work(bench):
        reader, writer = await bench.connect()
        await bench.settled(1)
        for octet in framed(query(LONG))[:11]:
            writer.write(bytes([octet]))
            await writer.drain()
            bench.now_s += 1.0
            bench.streams.sweep()
        return await is_closed(reader)

    assert run(work)


def test_dns_09_who_goes_on_asking_stays() -> None:
    async def work(bench):
        reader, writer = await bench.connect()
        for number in range(5):
            writer.write(framed(query(LONG, message_id=number)))
            assert (await answer_on(reader))[:2] == number.to_bytes(2, "big")
            bench.now_s += IDLE_S - 1
            bench.streams.sweep()
        return bench.streams.count

    assert run(work) == 1


def test_dns_09_one_address_has_a_few_connections() -> None:
    async def work(bench):
        kept = [await bench.connect() for _ in range(4)]
        await bench.settled(4)
        reader, _ = await bench.connect()
        assert await is_closed(reader)
        kept[0][1].close()
        await bench.settled(3)
        again, writer = await bench.connect()
        writer.write(framed(query(LONG)))
        return len(await answer_on(again)), bench.streams.refused_count

    size, refused = run(work, max_per_address=4)
    assert size > 0
    assert refused == 1


def test_dns_09_where_all_are_taken_the_one_silent_for_longest_makes_room() -> None:
    async def work(bench):
        connections = [await bench.connect() for _ in range(8)]
        await bench.settled(8)
        first, writer = connections[0]
        writer.write(framed(query(LONG)))
        await answer_on(first)
        late, late_writer = await bench.connect()
        late_writer.write(framed(query(LONG)))
        assert await answer_on(late)
        assert await is_closed(connections[1][0])
        writer.write(framed(query(LONG)))
        return len(await answer_on(first)) > 0, bench.streams.count

    assert run(work, max_connections=8, max_per_address=100) == (True, 8)


def test_dns_09_who_does_not_read_is_read_no_more_and_costs_no_memory() -> None:
    async def work(bench):
        bench.small.put("big", *[])
        _, writer = await bench.connect()
        await bench.settled(1)
        (connection,) = bench.streams._open
        stream = framed(query("eu-west.seip")) * 200
        for _ in range(4000):
            writer.write(stream)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await writer.drain()
            if not connection._transport or not connection._transport.is_reading():
                break
        transport = connection._transport
        waiting = transport.get_write_buffer_size() if transport else 0
        bench.now_s = 100.0
        bench.streams.sweep()
        return waiting, len(connection._buffer), bench.streams.count

    waiting, buffered, count = run(work)
    assert waiting < 1 << 20
    assert buffered < 1 << 20
    assert count == 0


def test_dns_09_who_has_a_network_of_ipv6_has_no_more_connections_by_that() -> None:
    network = {owner_of(f"2a00:1450:4001:81f::{number:x}") for number in range(1, 50)}
    others = {owner_of(f"2a00:1450:4001:{number:x}::1") for number in range(50)}
    # Endpoints of one mesh share a network, and are many.
    endpoints = {owner_of(f"fd12:3456:789a:1::a40:{number:x}") for number in range(50)}
    near = {owner_of(f"fe80::{number:x}%eth0") for number in range(50)}
    assert (len(network), len(others), len(endpoints), len(near)) == (1, 50, 50, 50)
    assert owner_of("192.0.2.1") != owner_of("192.0.2.2")
