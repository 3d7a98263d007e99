"""Who is talked to has a path; what measures one keeps none; the status tells all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from seipd.agent.paths import watching
from seipd.agent.paths.held import Held
from seipd.agent.paths.pathing import PeerPath
from seipd.agent.paths.proved import Peer
from seipd.agent.paths.watching import PathWatch
from seipd.agent.routes.book import RouteBook, Router
from services.edge.wireguard.model import PeerStatus
from services.kernel.errors import UnavailableError

PEER = Peer(node_id="n2", name="e2", address="10.64.0.11", address6="fd00::b", key=bytes(32))
BOOK = RouteBook(
    [Router(node_id="n3", name="gate", address="10.64.0.12", prefixes=("192.168.7.0/24",))],
    inner=("10.64.0.0/10",),
)


class Clock:
    def monotonic_s(self) -> float:
        return 1000.0

    def now_ms(self) -> int:
        return 2_000_000


@dataclass
class Paths:
    held: list = field(default_factory=list)
    wanted: list = field(default_factory=list)

    def want(self, address) -> None:
        self.wanted.append(address)


class Talkers:
    def __init__(self, *noted: str, fails: bool = False) -> None:
        self.noted, self.fails, self.networks = list(noted), fails, ()

    def begin(self, networks) -> None:
        if self.fails:
            raise UnavailableError("no nftables")
        self.networks = networks

    def end(self) -> None:
        self.networks = None

    def addresses(self) -> list[str]:
        return self.noted


class Peers:
    proved = tuple(
        Peer(node_id=f"n{n}", name=f"e{n}", address=f"10.64.1.{n}", address6="", key=bytes(32))
        for n in range(10, 60)
    )


class Rendezvous:
    def __init__(self, *answers: float | None) -> None:
        self.answers = list(answers)

    async def echo(self, address):
        return self.answers.pop(0)


def watch_of(talkers, *, book=BOOK, paths=None, rendezvous=None) -> PathWatch:
    return PathWatch(
        paths=paths or Paths(),
        peers=Peers(),
        rendezvous=rendezvous or Rendezvous(),
        talkers=talkers,
        inner=("10.64.0.0/10",),
        book=lambda: book,
        clock=Clock(),
    )


async def test_who_is_talked_to_is_wanted_and_who_carries_a_subnet_for_its_hosts():
    talkers = Talkers("10.64.0.11", "192.168.7.30")
    watch = watch_of(talkers)
    await watch.begin()
    assert talkers.networks == ("10.64.0.0/10", "192.168.7.0/24")
    assert await watch._wanted() == ["10.64.0.11", "10.64.0.12"]
    await watch.end()
    assert talkers.networks is None


async def test_an_exit_in_use_is_wanted_always():
    book = RouteBook(exit_address="10.64.0.13")
    assert await watch_of(Talkers(), book=book)._wanted() == ["10.64.0.13"]


async def test_without_nftables_the_first_thirty_two_are_wanted():
    watch = watch_of(Talkers(fails=True))
    await watch.begin()
    assert len(await watch._wanted()) == 32
    await watch.end()


async def test_a_set_that_somebody_flushed_is_put_back_at_once(monkeypatch):
    monkeypatch.setattr(watching, "LOOK_S", 0.01)
    monkeypatch.setattr(watching, "ECHO_S", 600.0)
    paths, talkers = Paths(), Talkers("10.64.0.11")
    watch = watch_of(talkers, paths=paths)

    def addresses() -> list[str]:
        if talkers.networks is None:
            raise UnavailableError("no such table")
        return talkers.noted

    talkers.addresses = addresses
    await watch.begin()
    for _ in range(3):
        talkers.networks = None
        paths.wanted.clear()
        async with asyncio.timeout(20):
            while not paths.wanted:
                await asyncio.sleep(0.005)
    await watch.end()


async def test_a_path_over_the_server_is_measured_through_the_tunnel():
    held = Held(peer=PEER, path=PeerPath(start_ms=0, leads=True))
    held.path.want(1000.0)
    watch = watch_of(None, paths=Paths([held]), rendezvous=Rendezvous(0.020, 0.030, None))
    for latency_us in (20_000, 23_000, None):
        await watch._measure(held)
        (shown,) = watch.facts()
        assert (shown["path"], shown["latency_us"]) == ("server", latency_us)
    assert shown["last_handshake_seconds"] is None


async def test_a_tunnel_of_its_own_is_shown_with_its_handshake_and_bytes():
    held = Held(peer=PEER, path=PeerPath(start_ms=0, leads=True))
    held.path.want(1000.0)
    held.path.relay_bound(("2001:db8::9", 9104), 1000.0)
    held.status = PeerStatus(
        public_key=bytes(32),
        endpoint=None,
        allowed_ips=(),
        keepalive_seconds=5,
        last_handshake_s=1990,
        rx_bytes=7,
        tx_bytes=9,
    )
    held.path.device(held.status, 1000.1)
    held.path.tick(1002.0)
    held.is_hopeless = True
    (shown,) = watch_of(None, paths=Paths([held])).facts()
    assert shown["path"] == "relay"
    assert "both sides" in shown["why"]
    assert shown["endpoint"] == "[2001:db8::9]:9104"
    assert (shown["last_handshake_seconds"], shown["rx_bytes"], shown["tx_bytes"]) == (10, 7, 9)
