"""Who may get a tunnel: those that were proved, asked for no more often than it is worth."""

from __future__ import annotations

import contextlib

import pytest

from seipd.agent.paths import proved
from seipd.agent.paths.proved import ProvedPeers
from services.kernel.ids import b64u_encode

KEYS = [bytes([n]) * 32 for n in range(3)]


class Clock:
    now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)


class State:
    def mesh(self):
        return {"node_id": "n0"}

    def keys(self):
        return None


def listed(number: int, key: bytes, name: str = "") -> dict:
    return {
        "node_id": f"n{number}",
        "name": name or f"e{number}",
        "address": f"10.64.0.{10 + number}",
        "address6": f"fd00::{10 + number:x}",
        "wireguard_key": b64u_encode(key),
        "path": "server",
    }


class Server:
    """Lists endpoints, and proves those that it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.listed = [listed(1, KEYS[1]), listed(2, KEYS[2])]
        self.trust = {"n1": "proven", "n2": "waiting"}
        self.lists = self.proofs = 0
        server = self

        class Api(contextlib.AbstractAsyncContextManager):
            def __init__(self, mesh, keys) -> None:
                pass

            async def __aexit__(self, *error) -> None:
                pass

            async def call(self, method, path, body=None):
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
    peers = ProvedPeers(state=State(), signer_count=0, clock=clock)
    peers.subscribe(ear)
    return server, ear, clock, peers


async def test_who_is_proved_is_told_and_who_waits_is_not(stage):
    _, ear, _, peers = stage
    await peers._work()
    assert ear.heard == [("proved", "e1")]
    assert peers.find("10.64.0.11").key == KEYS[1]
    assert peers.find("10.64.0.12") is None
    assert peers.why_not("10.64.0.12") == "so"
    assert peers.address_of("fd00::c") == "10.64.0.12"
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


async def test_an_address_that_is_not_listed_is_asked_for_once_a_minute(stage):
    server, _, clock, peers = stage
    server.trust["n2"] = "proven"
    await peers._work()
    for address in ("10.64.0.99", "10.64.0.99", "10.64.0.1", "10.64.16.2", "fd00::63"):
        assert peers.address_of(address) is None
    await peers._work()
    assert server.lists == 2
    assert peers.address_of("10.64.0.1") is None
    await peers._work()
    assert (server.lists, server.proofs) == (2, 2)
    clock.now_s += 61
    assert peers.address_of("10.64.0.99") is None
    await peers._work()
    assert server.lists == 3


async def test_one_that_calls_before_it_is_listed_is_looked_for(stage):
    server, ear, _, peers = stage
    await peers._work()
    server.listed.append(listed(0, KEYS[0]))
    server.trust["n0"] = "proven"
    peers.want("10.64.0.10", now=True)
    await peers._work()
    assert ("proved", "e0") in ear.heard
