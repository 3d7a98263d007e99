"""The kernel tells of another way out: cables are pulled, and addresses come and go."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from seipd.agent.changes import Change
from seipd.agent.mtu.probing import Echoes, search
from seipd.agent.mtu.searching import Outcome
from seipd.agent.uplink import UplinkWatch, way_to
from services.edge.wireguard.mtu import WaySize
from services.edge.wireguard.ways import size_of_way
from tests.fakes.namespaces import inside
from tests.fakes.narrow import narrow
from tests.fakes.natlab import Kind, nat_lab_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from seipd.agent.mtu.searching import Search
    from tests.fakes.natlab import NatLab

pytestmark = pytest.mark.integration

SOON_S = 10.0
NOTHING_S = 0.6
SERVER = "198.18.0.11"


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with nat_lab_of((Kind.PORT_RESTRICTED,)) as built:
        built.prepare()
        built.add_uplink("e1", Kind.SYMMETRIC)
        yield built


@pytest.fixture
def ip(lab: NatLab):
    def change(*words: str) -> None:
        subprocess.run(["ip", "-n", lab.plan.host("e1").namespace, *words], check=True)

    return change


@asynccontextmanager
async def watched(lab: NatLab, **other: object) -> AsyncIterator[asyncio.Queue[Change]]:
    told: asyncio.Queue[Change] = asyncio.Queue()
    watch = UplinkWatch(interface="tun0", server=lambda: SERVER, on_change=told.put, **other)
    with inside(lab.plan.host("e1").namespace):
        task = asyncio.ensure_future(watch.run())
        await asyncio.sleep(NOTHING_S)
        yield told
        task.cancel()
        await asyncio.wait([task])


async def next_of(told: asyncio.Queue[Change]) -> Change:
    async with asyncio.timeout(SOON_S):
        return await told.get()


async def test_a_pulled_cable_is_told_and_what_is_no_news_is_not(lab: NatLab, ip) -> None:
    async with watched(lab) as told:
        way = await way_to(SERVER)
        assert way is not None
        assert (way.own, way.router) == ("192.168.1.2", "192.168.1.1")
        ip("link", "set", "eth0", "down")
        assert await next_of(told) is Change.WAY
        way = await way_to(SERVER)
        assert way is not None
        assert (way.own, way.router) == ("192.168.51.2", "192.168.51.1")
        ip("route", "add", "198.51.100.0/24", "via", "192.168.51.1")
        await asyncio.sleep(NOTHING_S)
        assert told.empty(), "a route to elsewhere"
        ip("link", "set", "eth0", "up")
        ip("route", "add", "default", "via", "192.168.1.1", "metric", "100")
        assert await next_of(told) is Change.WAY


async def test_no_way_at_all_is_not_told_until_one_is_back(lab: NatLab, ip) -> None:
    async with watched(lab) as told:
        ip("route", "del", "default", "metric", "100")
        assert await next_of(told) is Change.WAY
        ip("route", "del", "default", "metric", "500")
        await asyncio.sleep(NOTHING_S)
        assert await way_to(SERVER) is None
        assert told.empty()
        ip("route", "add", "default", "via", "192.168.51.1", "metric", "500")
        ip("route", "add", "default", "via", "192.168.1.1", "metric", "100")
        assert await next_of(told) is Change.WAY


async def test_another_address_is_told_but_of_the_tunnel(lab: NatLab, ip) -> None:
    async with watched(lab) as told:
        ip("tuntap", "add", "dev", "tun0", "mode", "tun")
        ip("addr", "add", "10.64.0.10/32", "dev", "tun0")
        await asyncio.sleep(NOTHING_S)
        assert told.empty()
        ip("addr", "add", "192.168.1.77/24", "dev", "eth0")
        assert await next_of(told) is Change.MORE
        ip("addr", "del", "192.168.1.77/24", "dev", "eth0")
        assert await next_of(told) is Change.ADDRESSES
        ip("link", "del", "tun0")


async def test_how_large_a_packet_may_be_is_learnt_of_routers_or_found_out(lab: NatLab) -> None:
    def tried() -> Awaitable[Search]:
        return search(1500, Echoes(SERVER, "eth0"), pause_s=0.0)

    router = lab.router("e1")
    with inside(lab.plan.host("e1").namespace):
        assert (await tried()).outcome is Outcome.FITS
        narrow(router, 1400, tells=False)
        found = await tried()
        assert (found.outcome, found.fits_bytes) == (Outcome.SMALLER, 1392)
        assert await size_of_way(SERVER) == WaySize(link_bytes=1500)
        narrow(router, 1400, tells=True)
        await tried()
        assert await size_of_way(SERVER) == WaySize(link_bytes=1500, route_bytes=1400)
        narrow(router, 1500, tells=True)


async def test_a_sleep_is_told_when_it_is_over(lab: NatLab) -> None:
    readings = iter([(0.0, 0.0), (1.0, 1.0), (2.0, 602.0)])
    last = (3.0, 603.0)
    async with watched(lab, clocks=lambda: next(readings, last)) as told:
        assert await next_of(told) is Change.AWAKE
        await asyncio.sleep(NOTHING_S)
        assert told.empty()
