"""Many datagrams by one call: each answer goes to who asked, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import socket

import pytest

from services.runtime.batches import AnsweringSocket
from services.runtime.udp import BATCH, MAX_DATAGRAM_BYTES


class Rig:
    """A socket that echoes, and clients that have sent before it looks."""

    def __init__(self, host: str = "127.0.0.1", client_count: int = 3) -> None:
        self.hosts: list[bytes] = []
        self.answering = AnsweringSocket(self.answer)
        self.place = (host, self.answering.open(host, 0))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.clients = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(client_count)]
        for one in self.clients:
            one.setblocking(False)
            one.bind((host, 0))

    def answer(self, data: bytes, host: bytes) -> bytes | None:
        self.hosts.append(host)
        if data.startswith(b"silence"):
            return None
        return b"x" * int(data[4:]) if data.startswith(b"long") else b"to " + data

    async def heard(self, count: int) -> list[list[bytes]]:
        """Return what each client gets until there are so many in all, and none after them."""
        found: list[list[bytes]] = [[] for _ in self.clients]
        async with asyncio.timeout(60):
            while sum(map(len, found)) < count:
                self._read(found)
                await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        self._read(found)
        return found

    def _read(self, found: list[list[bytes]]) -> None:
        for client, mine in zip(self.clients, found, strict=True):
            with contextlib.suppress(BlockingIOError):
                while True:
                    mine.append(client.recv(65_536))

    def close(self) -> None:
        self.answering.close()
        for one in self.clients:
            one.close()


@pytest.fixture
async def rig():
    made = Rig()
    yield made
    made.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_each_gets_its_own_answers_in_order_over_more_than_one_batch(host: str) -> None:
    rig = Rig(host)
    sent: list[list[bytes]] = [[] for _ in rig.clients]
    for number in range(3 * BATCH):
        client = number * 7 % 3
        sent[client].append(b"%d of %d" % (number, client) + b"." * (number % 50))
        rig.clients[client].sendto(sent[client][-1], rig.place)
    heard = await rig.heard(3 * BATCH)
    rig.close()
    assert heard == [[b"to " + one for one in mine] for mine in sent]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert set(rig.hosts) == {socket.inet_pton(family, host)}


async def test_those_without_an_answer_leave_the_others_theirs(rig: Rig) -> None:
    kinds = [b"silence", b"a", b"b", b"silence", b"silence", b"c", b"", b"silence"]
    for number, kind in enumerate(kinds):
        rig.clients[number % 3].sendto(kind, rig.place)
    heard = await rig.heard(4)
    assert heard == [[b"to "], [b"to a"], [b"to b", b"to c"]]
    assert len(rig.hosts) == len(kinds)


async def test_what_is_too_long_is_cut_on_the_way_in_and_dropped_on_the_way_out(rig: Rig) -> None:
    rig.clients[0].sendto(b"q" * 5000, rig.place)
    for size in (MAX_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES + 1, 3):
        rig.clients[1].sendto(b"long%d" % size, rig.place)
    heard = await rig.heard(2)
    assert [len(one) for one in heard[1]] == [MAX_DATAGRAM_BYTES, 3]
    # The echo of what was cut is over the bound by its first word.
    assert (heard[0], rig.answering.dropped_count) == ([], 2)


async def test_an_answer_that_cant_be_sent_costs_no_other_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = rig.answering._transmit, []

    def fails_once(*words: object) -> int:
        calls.append(words[2])
        if len(calls) > 1:
            return int(real(*words))
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(rig.answering, "_transmit", fails_once)
    for number in range(3):
        rig.clients[number].sendto(b"%d" % number, rig.place)
    heard = await rig.heard(2)
    assert heard == [[], [b"to 1"], [b"to 2"]]
    assert (rig.answering.failed_count, calls) == (1, [3, 2])


async def test_what_the_kernel_has_no_room_for_is_dropped_and_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        ctypes.set_errno(errno.EAGAIN)
        return -1

    with monkeypatch.context() as patched:
        patched.setattr(rig.answering, "_transmit", full)
        rig.clients[0].sendto(b"a", rig.place)
        rig.clients[0].sendto(b"b", rig.place)
        async with asyncio.timeout(60):
            while rig.answering.dropped_count < 2:
                await asyncio.sleep(0)
    rig.clients[0].sendto(b"c", rig.place)
    assert (await rig.heard(1))[0] == [b"to c"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
async def test_where_the_calls_are_forbidden_each_is_answered_by_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def forbidden(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(rig.answering, "_receive", forbidden)
    monkeypatch.setattr(rig.answering, "_transmit", forbidden)
    for client, data in enumerate((b"a", b"silence", b"c")):
        rig.clients[client].sendto(data, rig.place)
    assert await rig.heard(2) == [[b"to a"], [], [b"to c"]]
    assert set(rig.hosts) == {bytes([127, 0, 0, 1])}


async def test_after_the_end_nobody_is_answered(rig: Rig) -> None:
    rig.answering.close()
    rig.answering.close()
    rig.clients[0].sendto(b"a", rig.place)
    await asyncio.sleep(0)
    assert rig.hosts == []
