"""A datagram socket that never waits and never takes the event loop down."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from services.kernel.errors import ConflictError
from services.runtime import udp as udp_module
from services.runtime.udp import BATCH, UdpSocket


@pytest.fixture
async def sockets():
    made: list[UdpSocket] = []

    def make(on_datagram=lambda data, address: None):
        one = UdpSocket(on_datagram)
        made.append(one)
        return one, one.open("127.0.0.1", 0)

    yield make
    for one in made:
        one.close()


class Refusing:
    """A kernel socket that refuses to send."""

    def __init__(self, real, error):
        self._real, self.error = real, error

    def sendto(self, data, address):
        raise self.error

    def __getattr__(self, name):
        return getattr(self._real, name)


async def test_datagrams_arrive_with_their_sender(sockets):
    inbox: asyncio.Queue = asyncio.Queue()
    _, port = sockets(lambda data, address: inbox.put_nowait((data, address)))
    sender, sender_port = sockets()
    sender.send(b"hello", ("127.0.0.1", port))
    sender.send(b"", ("127.0.0.1", port))
    assert await asyncio.wait_for(inbox.get(), 60) == (b"hello", ("127.0.0.1", sender_port))
    assert (await asyncio.wait_for(inbox.get(), 60))[0] == b""


async def test_more_than_a_batch_arrives_whole_and_in_order(sockets):
    inbox: asyncio.Queue = asyncio.Queue()
    _, port = sockets(lambda data, _: inbox.put_nowait(data))
    sender, _ = sockets()
    sent = [b"%d" % number for number in range(2 * BATCH + 5)]
    for data in sent:
        sender.send(data, ("127.0.0.1", port))
    got = [await asyncio.wait_for(inbox.get(), 60) for _ in sent]
    assert got == sent


async def test_a_flood_leaves_the_loop_its_turn(sockets):
    seen = []
    _, port = sockets(lambda data, _: seen.append(data))
    sender, _ = sockets()
    for _ in range(4 * BATCH):
        sender.send(b"x", ("127.0.0.1", port))
    while not seen:
        await asyncio.sleep(0)
    assert len(seen) <= BATCH


async def test_a_port_that_is_taken_is_a_conflict_with_its_mend(sockets):
    _, port = sockets()
    other = UdpSocket(lambda data, address: None)
    with pytest.raises(ConflictError) as caught:
        other.open("127.0.0.1", port)
    assert caught.value.code == "port_in_use"
    assert f"{port}/udp" in str(caught.value)
    assert caught.value.mend


async def test_gos_24_send_errors_are_counted_logged_once_a_minute_and_survived(
    sockets, caplog, monkeypatch
):
    inbox: asyncio.Queue = asyncio.Queue()
    one, port = sockets(lambda data, _: inbox.put_nowait(data))
    real = one._socket
    now_s = [1000.0]
    monkeypatch.setattr(udp_module.time, "monotonic", lambda: now_s[0])
    for number in (errno.ENETUNREACH, errno.EPERM, errno.ENOBUFS, errno.ECONNREFUSED):
        one._socket = Refusing(real, OSError(number, "refused"))
        one.send(b"x", ("127.0.0.1", 9))
    assert one.failed_count == 4
    assert len(caplog.records) == 1
    now_s[0] += 61
    one.send(b"x", ("127.0.0.1", 9))
    assert len(caplog.records) == 2
    one._socket = Refusing(real, BlockingIOError())
    one.send(b"x", ("127.0.0.1", 9))
    assert (one.dropped_count, len(caplog.records)) == (1, 2)
    one._socket = real
    one.send(b"still here", ("127.0.0.1", port))
    assert await asyncio.wait_for(inbox.get(), 60) == b"still here"


async def test_a_peer_that_is_gone_does_not_stop_receiving(sockets):
    gone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    gone.bind(("127.0.0.1", 0))
    address = gone.getsockname()
    gone.close()
    inbox: asyncio.Queue = asyncio.Queue()
    one, port = sockets(lambda data, _: inbox.put_nowait(data))
    for _ in range(3):
        one.send(b"to nobody", address)
        await asyncio.sleep(0)
    other, _ = sockets()
    other.send(b"hello", ("127.0.0.1", port))
    assert await asyncio.wait_for(inbox.get(), 60) == b"hello"


async def test_closing_in_the_middle_of_a_batch_ends_it(sockets):
    seen = []
    one, port = sockets(lambda data, _: (seen.append(data), one.close()))
    sender, _ = sockets()
    for _ in range(5):
        sender.send(b"x", ("127.0.0.1", port))
    while not seen:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    one.close()
    one.send(b"after", ("127.0.0.1", port))
    assert len(seen) == 1
