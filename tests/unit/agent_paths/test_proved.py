"""Who may get a tunnel: those that were proved, asked for no more often than it is worth."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from seipd.agent.paths import proved
from seipd.agent.paths.proved import ProvedPeers
from services.kernel.addr import parse_address, tunnel6
from services.kernel.errors import NotFoundError
from services.kernel.ids import b64u_encode

MESH = "ab" * 32
KEYS = [bytes([n]) * 32 for n in range(3)]


class Clock:
    now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)


class State:
    def mesh(self):
        return {"node_id": "n0", "mesh_id": MESH}

    def keys(self):
        return None


def kin(address: str) -> str:
    return str(tunnel6(MESH, parse_address(address)))


def listed(number: int, key: bytes, name: str = "") -> dict:
    return {
        "node_id": f"n{number}",
        "name": name or f"e{number}",
        "address": f"10.64.0.{10 + number}",
        "address6": kin(f"10.64.0.{10 + number}"),
        "wireguard_key": b64u_encode(key),
        "path": "server",
    }


class Server:
    """Lists endpoints, and proves those that it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.listed = [listed(1, KEYS[1]), listed(2, KEYS[2])]
        self.trust = {"n1": "proven", "n2": "waiting"}
        self.lists = self.proofs = 0
        self.elsewhere: dict[str, dict] = {}
        self.lookups: list[list[str]] = []
        self.keeps_rules = True
        self.is_old = False
        server = self

        class Api(contextlib.AbstractAsyncContextManager):
            def __init__(self, mesh, keys) -> None:
                pass

            async def __aexit__(self, *error) -> None:
                pass

            async def call(self, method, path, body=None):
                if method == "POST":
                    if server.is_old:
                        raise NotFoundError("no such path")
                    server.lookups.append(body["addresses"])
                    found = map(server.elsewhere.get, body["addresses"])
                    return {"peers": [one for one in found if one is not None]}
                server.lists += 1
                return {"peers": server.listed}

        class Prover:
            def __init__(self, **given) -> None:
                pass

            async def peers(self, api, wanted):
                server.proofs += len(wanted)
                return [
                    {**one, "trust": server.trust[one["node_id"]], "why": "so"} for one in wanted
                ]

        monkeypatch.setattr(proved, "PrivateApi", Api)
        monkeypatch.setattr(proved, "Prover", Prover)
        monkeypatch.setattr(proved, "peers_of", lambda value: value["peers"])


class Ear:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def peer_proved(self, peer) -> None:
        self.heard.append(("proved", peer.name))

    def peer_gone(self, peer) -> None:
        self.heard.append(("gone", peer.name))


@pytest.fixture
def stage(monkeypatch):
    server, ear, clock = Server(monkeypatch), Ear(), Clock()
    peers = ProvedPeers(
        state=State(), signer_count=0, clock=clock, keeps_rules=lambda: server.keeps_rules
    )
    peers.subscribe(ear)
    return server, ear, clock, peers


async def test_who_is_proved_is_told_and_who_waits_is_not(stage):
    _, ear, _, peers = stage
    await peers._work()
    assert ear.heard == [("proved", "e1")]
    assert peers.find("10.64.0.11").key == KEYS[1]
    assert peers.find("10.64.0.12") is None
    assert peers.why_not("10.64.0.12") == "so"
    assert peers.address_of(kin("10.64.0.12")) == "10.64.0.12"
    assert peers.counts == {"listed": 2, "proved": 1}


async def test_another_key_at_an_address_ends_the_tunnel_there(stage):
    server, ear, _, peers = stage
    await peers._work()
    server.listed = [listed(1, KEYS[0])]
    server.trust["n1"] = "waiting"
    peers.changed()
    await peers._work()
    assert ear.heard == [("proved", "e1"), ("gone", "e1")]
    assert peers.find("10.64.0.11") is None


async def test_an_address_that_is_not_listed_is_asked_for_now_and_then(stage):
    server, _, clock, peers = stage
    server.trust["n2"] = "proven"
    await peers._work()
    unknown = ("10.64.0.99", "10.64.0.99", kin("10.64.0.99"), "10.64.0.1", "10.64.16.2", "fd00::63")
    for address in unknown:
        assert peers.address_of(address) is None
    await peers._work()
    assert (server.lists, server.lookups, server.proofs) == (1, [["10.64.0.99"]], 2)
    # Soon again, for it may have joined elsewhere just now; then less and less often.
    counts = []
    for _ in range(60):
        assert peers.address_of("10.64.0.99") is None
        await peers._work()
        counts.append(len(server.lookups))
        clock.now_s += 1.0
    assert [counts.index(number) for number in (1, 2, 3, 4, 5)] == [0, 2, 7, 27, 47]


async def test_addresses_without_end_are_asked_for_in_turn(stage):
    """Somebody on this machine looks for all of the mesh."""
    server, _, clock, peers = stage
    await peers._work()
    for number in range(3000):
        assert peers.address_of(f"10.64.{16 + number // 200}.{20 + number % 200}") is None
    assert len(peers._unlisted_s) <= proved.MAX_UNLISTED
    assert len(peers._asked) <= proved.MAX_LOOKED_UP
    await peers._work()
    assert [len(one) for one in server.lookups] == [proved.LOOKUPS_AT_ONCE]
    clock.now_s += 21
    assert peers.address_of("10.64.40.20") is None
    assert "10.64.40.20" in peers._unlisted_s


async def test_who_keeps_no_rules_has_the_list_fetched_instead(stage):
    server, _, clock, peers = stage
    server.keeps_rules = False
    server.elsewhere["10.64.0.99"] = listed(89, KEYS[0])
    await peers._work()
    assert peers.address_of("10.64.0.99") is None
    peers.want("10.64.0.99", now=True)
    await peers._work()
    assert (server.lists, server.lookups) == (2, [])
    clock.now_s += 21
    assert peers.address_of("10.64.0.99") is None
    await peers._work()
    assert (server.lists, server.lookups) == (3, [])


async def test_who_stands_in_no_list_is_met_while_rules_and_servers_let_it(stage):
    """An endpoint of another customer, or the thousand and first of one's own."""
    server, ear, _, peers = stage
    server.trust["n89"] = "proven"
    server.elsewhere["10.64.0.99"] = other = listed(89, KEYS[0])
    await peers._work()
    assert peers.address_of(kin("10.64.0.99")) is None
    await peers._work()
    assert ear.heard[-1] == ("proved", "e89")
    assert peers.address_of(kin("10.64.0.99")) == "10.64.0.99"
    assert peers.find("10.64.0.99").key == KEYS[0]
    # A new list says nothing of it.
    peers.changed()
    await peers._work()
    assert peers.find("10.64.0.99") is not None
    # A rule that goes ends it at once, and so does another key.
    del server.elsewhere["10.64.0.99"]
    peers.rules_changed()
    await peers._work()
    assert ear.heard[-1] == ("gone", "e89")
    assert peers.find("10.64.0.99") is None
    server.elsewhere["10.64.0.99"] = other
    peers.want("10.64.0.99", now=True)
    await peers._work()
    assert ear.heard[-1] == ("proved", "e89")
    server.elsewhere["10.64.0.99"], server.trust["n89"] = listed(89, KEYS[1]), "waiting"
    peers.rules_changed()
    await peers._work()
    assert ear.heard[-1] == ("gone", "e89")


async def test_who_keeps_rules_no_more_lets_go_of_those_whom_only_servers_hold_to_them(stage):
    server, ear, _, peers = stage
    server.trust["n89"] = "proven"
    server.elsewhere["10.64.0.99"] = listed(89, KEYS[0])
    peers.want("10.64.0.99", now=True)
    await peers._work()
    assert peers.find("10.64.0.99") is not None
    server.keeps_rules = False
    task = asyncio.create_task(peers.run())
    while peers.find("10.64.0.99") is not None:
        await asyncio.sleep(0)
    task.cancel()
    assert ear.heard[-1] == ("gone", "e89")
    assert peers.find("10.64.0.11") is not None


async def test_a_server_that_can_not_look_up_is_no_trouble_for_those_it_lists(stage):
    server, _, _, peers = stage
    server.is_old = True
    peers.want("10.64.0.99", now=True)
    await peers._work()
    assert peers.find("10.64.0.11").key == KEYS[1]
    assert peers.address_of("10.64.0.99") is None


async def test_one_that_calls_before_it_is_listed_is_looked_for(stage):
    server, ear, _, peers = stage
    await peers._work()
    server.elsewhere["10.64.0.10"] = listed(0, KEYS[0])
    server.trust["n0"] = "proven"
    peers.want("10.64.0.10", now=True)
    await peers._work()
    assert ("proved", "e0") in ear.heard
