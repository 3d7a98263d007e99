"""A port is kept open: by whichever way works, renewed in time, given back in the end."""

from __future__ import annotations

import asyncio
import socket

import pytest

from seipd.agent.portmap import mapper as mapping
from seipd.agent.portmap import natpmp
from seipd.agent.portmap.asking import ask
from seipd.agent.portmap.gateway import Gateway
from seipd.agent.portmap.mapped import RENEW_S, Mapped, PortMapError
from seipd.agent.portmap.mapper import PortMapper
from seipd.agent.portmap.protocols import Pcp
from services.kernel.errors import UnavailableError

HOME = Gateway(host="192.168.1.1", own="192.168.1.2")
PORT = 51940


class FakeWay:
    """A way that grants as it is told."""

    def __init__(self, name: str, grants: Mapped | None) -> None:
        self.name = name
        self.grants = grants
        self.asked: list[tuple[int, int]] = []
        self.given_back: list[int] = []

    async def map(self, port: int, wanted: int) -> Mapped:
        self.asked.append((port, wanted))
        if self.grants is None:
            raise PortMapError("no")
        return self.grants

    async def give_back(self, mapped: Mapped, port: int) -> None:
        self.given_back.append(mapped.port)


def granted(host: str = "203.0.113.7", port: int = 4242, lifetime_s: int = 1200) -> Mapped:
    return Mapped(by="fake", host=host, port=port, lifetime_s=lifetime_s)


class Kept:
    """A mapper at a router that has some ways."""

    def __init__(self, *ways: FakeWay, gateway: Gateway | None = HOME) -> None:
        self.gateway = gateway
        self.told: list[Mapped | None] = []
        self.mapper = PortMapper(
            port=lambda: PORT,
            towards=lambda: "198.18.0.11",
            mesh_ranges=(),
            told=self.told.append,
            gateway=self._find,
            ways=lambda _: ways,
        )

    async def _find(self, host: str) -> Gateway | None:
        if self.gateway is not None and self.gateway.host == "":
            raise UnavailableError("no way there")
        return self.gateway


async def test_the_first_way_that_works_is_kept_and_asked_first_from_then_on() -> None:
    refuses, works = FakeWay("PCP", None), FakeWay("NAT-PMP", granted())
    kept = Kept(refuses, works)
    await kept.mapper.look()
    assert kept.mapper.mapped == granted()
    await kept.mapper.look()
    assert refuses.asked == [(PORT, PORT)]
    assert works.asked == [(PORT, PORT), (PORT, 4242)], "renewed at the same outer port"
    assert kept.told == [granted()], "told once"


async def test_where_nothing_works_it_says_why() -> None:
    kept = Kept(FakeWay("PCP", None), FakeWay("UPnP", None))
    await kept.mapper.look()
    assert kept.mapper.mapped is None
    assert kept.mapper.why == "PCP: no; UPnP: no"


async def test_a_lie_is_given_back_and_the_next_way_asked() -> None:
    lies, works = FakeWay("PCP", granted("127.0.0.1")), FakeWay("UPnP", granted())
    kept = Kept(lies, works)
    await kept.mapper.look()
    assert lies.given_back == [4242]
    assert kept.mapper.mapped == granted()


async def test_what_the_router_no_longer_grants_is_told() -> None:
    way = FakeWay("PCP", granted())
    kept = Kept(way)
    await kept.mapper.look()
    way.grants = None
    await kept.mapper.look()
    way.grants = granted(port=5353)
    await kept.mapper.look()
    assert kept.told == [granted(), None, granted(port=5353)]


async def test_in_the_end_the_port_is_given_back_once() -> None:
    way = FakeWay("PCP", granted())
    kept = Kept(way)
    await kept.mapper.look()
    await kept.mapper.end()
    await kept.mapper.end()
    assert way.given_back == [4242]
    assert kept.told == [granted(), None]


@pytest.mark.parametrize(
    "gateway",
    [None, Gateway(host="", own=""), Gateway(host="203.0.113.1", own="203.0.113.9")],
    ids=["on the same link", "no way", "a public address of its own"],
)
async def test_without_a_router_nobody_is_asked(gateway) -> None:
    way = FakeWay("PCP", granted())
    kept = Kept(way, gateway=gateway)
    await kept.mapper.look()
    assert way.asked == []
    assert kept.mapper.why == mapping.NO_ROUTER


async def test_another_network_begins_anew() -> None:
    way = FakeWay("PCP", granted())
    kept = Kept(way)
    await kept.mapper.look()
    kept.gateway = None
    await kept.mapper.look()
    assert kept.told == [granted(), None]


async def test_it_is_asked_again_within_minutes_and_at_once_after_a_change(
    monkeypatch,
) -> None:
    waits: list[float] = []
    real = asyncio.timeout

    def timeout(wait_s: float) -> asyncio.Timeout:
        waits.append(wait_s)
        return real(0 if wait_s == RENEW_S else wait_s)

    monkeypatch.setattr(mapping.asyncio, "timeout", timeout)
    way = FakeWay("PCP", granted())
    kept = Kept(way)
    task = asyncio.ensure_future(kept.mapper.run())
    while len(way.asked) < 3:
        await asyncio.sleep(0)
    assert waits[:2] == [RENEW_S, RENEW_S]
    way.grants = granted(lifetime_s=100)
    while waits[-1] != 50:
        await asyncio.sleep(0)
    count = len(way.asked)
    kept.mapper.changed()
    while len(way.asked) == count:
        await asyncio.sleep(0)
    task.cancel()


@pytest.fixture
def router():
    """A socket that is the gateway, at an address of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        yield sock


def here(router: socket.socket) -> tuple[Gateway, int]:
    return Gateway(host="127.0.0.1", own="127.0.0.1"), router.getsockname()[1]


async def test_only_the_gateway_is_heard(router) -> None:
    loop = asyncio.get_running_loop()
    gateway, port = here(router)

    async def answer() -> None:
        _, source = await loop.sock_recvfrom(router, 100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"stranger", source)
        await loop.sock_sendto(router, b"nonsense", source)
        await loop.sock_sendto(router, b"gateway", source)

    heard: list[bytes] = []

    def answer_in(data: bytes) -> bytes | None:
        heard.append(data)
        return data if data == b"gateway" else None

    async with asyncio.TaskGroup() as group:
        group.create_task(answer())
        assert await ask(gateway, port, b"?", answer_in) == b"gateway"
    assert heard == [b"nonsense", b"gateway"]


async def test_a_silent_router_is_asked_three_times(router, monkeypatch) -> None:
    monkeypatch.setattr("seipd.agent.portmap.asking.WAITS_S", (0.01, 0.01, 0.01))
    gateway, port = here(router)
    with pytest.raises(PortMapError, match="is silent"):
        await ask(gateway, port, b"?", lambda data: data)
    assert [router.recv(10) for _ in range(3)] == [b"?"] * 3
    with pytest.raises(BlockingIOError):
        router.recv(10)


async def test_a_machine_without_the_service_is_known_at_once(router) -> None:
    gateway, port = here(router)
    router.close()
    with pytest.raises(PortMapError, match="nobody answers"):
        await ask(gateway, port, b"?", lambda data: data)


async def test_pcp_takes_no_answer_with_another_nonce(router, monkeypatch) -> None:
    gateway, port = here(router)
    monkeypatch.setattr(natpmp, "PORT", port)
    loop = asyncio.get_running_loop()

    async def answer() -> None:
        asked, source = await loop.sock_recvfrom(router, 100)
        outside = bytes.fromhex("00000000000000000000ffffcb007107")
        head = b"\2\x81\0\0" + asked[4:8] + bytes(16)
        others = bytes(12) + asked[36:40] + asked[40:42] + b"\x10\x11" + outside
        await loop.sock_sendto(router, head + others, source)
        ours = asked[24:42] + b"\x10\x92" + outside
        await loop.sock_sendto(router, head + ours, source)

    async with asyncio.TaskGroup() as group:
        group.create_task(answer())
        mapped = await Pcp(gateway).map(PORT, PORT)
    assert mapped == Mapped(by="PCP", host="203.0.113.7", port=4242, lifetime_s=1200)
