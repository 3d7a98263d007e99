"""A server finds out whether relays live, and what it makes of their silence."""

from __future__ import annotations

import dataclasses
import errno
import socket

import pytest

from services.base.crypto.agreement import generate_x25519, x25519_public
from services.base.crypto.signatures import generate_signing_key
from services.edge.relay.keys import box_private_key
from services.edge.relay.service import RelayService
from services.edge.relay.settings import RelaySettings
from services.edge.relaying import asking
from services.edge.relaying.asking import RelayAsker
from services.edge.relaying.finding import Relay
from services.edge.relaying.probing import ENOUGH, MISSED_FOR_DOWN, Probes, next_to_ask
from services.edge.relaying.running import raw_relay_id
from services.kernel.errors import UnavailableError
from services.kernel.ids import MeshId, relay_id_of
from services.runtime.clock import SystemClock

MESH = MeshId("ab" * 32)
KEY = generate_signing_key()
SERVER = generate_signing_key()
PRIVATE, _ = generate_x25519()


def relay_at(port: int) -> Relay:
    return Relay(
        relay_id=relay_id_of(KEY.public_key),
        key=KEY.public_key,
        box=x25519_public(box_private_key(KEY.seed)),
        host="127.0.0.1",
        host6="",
        port=port,
        region="eu-west",
    )


@pytest.fixture
async def relay():
    service = RelayService(
        settings=RelaySettings(
            relay_id=raw_relay_id(KEY.public_key),
            mesh_id=bytes.fromhex(MESH),
            box_private=box_private_key(KEY.seed),
            hosts=("127.0.0.1",),
            port=0,
            may_use_kernel=False,
        ),
        is_server=lambda key: key == SERVER.public_key,
        is_welcome=lambda _: True,
        why_refused=lambda *_: None,
        clock=SystemClock(),
    )
    await service.start()
    yield service
    await service.stop()


def asker(signer=SERVER) -> RelayAsker:
    return RelayAsker(private_key=PRIVATE, signer=signer, mesh_id=MESH, clock=SystemClock())


async def test_a_relay_that_lives_answers_each_time(relay) -> None:
    for _ in range(3):
        round_trip_ms = await asker().ask(relay_at(relay.port))
        assert round_trip_ms is not None
        assert round_trip_ms >= 0
    assert relay.status().asked["granted"] == 3
    assert relay.status().sessions <= 1


async def test_nobody_else_is_answered(relay, monkeypatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(asking, "TICK_S", 0.1)
    assert await asker(generate_signing_key()).ask(relay_at(relay.port)) is None
    assert relay.status().sessions == 0


async def test_a_relay_that_is_away_does_not_answer(monkeypatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(asking, "TICK_S", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        assert await asker().ask(relay_at(deaf.getsockname()[1])) is None
        port = deaf.getsockname()[1]
    assert await asker().ask(relay_at(port)) is None


class NoRoute(socket.socket):
    """A socket of a machine without a way there."""

    def connect(self, _address) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")


async def test_where_there_is_no_way_nothing_is_said_of_the_relay(monkeypatch) -> None:
    beyond = dataclasses.replace(relay_at(9103), host="", host6="2001:db8::9")
    monkeypatch.setattr(asking.socket, "socket", NoRoute)
    with pytest.raises(UnavailableError):
        await asker().ask(beyond)


def test_three_questions_without_an_answer_are_down_and_one_answer_is_up() -> None:
    probes = Probes()
    assert not probes.is_down("relay")
    for _ in range(MISSED_FOR_DOWN):
        assert not probes.is_down("relay")
        probes.put("relay", None)
    assert probes.is_down("relay")
    assert not probes.is_answering("relay")
    probes.put("relay", 12.0)
    assert not probes.is_down("relay")
    assert probes.is_answering("relay")
    assert probes.latency_ms("relay") == 12.0
    probes.keep_only(lambda _: False)
    assert probes.latency_ms("relay") is None


def test_a_server_has_a_voice_once_it_asked_often_enough() -> None:
    probes = Probes()
    for number in range(ENOUGH):
        assert probes.quality("relay") is None
        probes.put("relay", 20.0 + number)
    good = probes.quality("relay")
    assert good is not None
    assert (good.uptime, good.delivery, good.rating) == (1.0, 1.0, None)
    for _ in range(ENOUGH):
        probes.put("relay", None)
    worse = probes.quality("relay")
    assert worse is not None
    assert worse.uptime == 0.5
    assert worse.delivery == 0.0


def test_those_in_doubt_are_asked_in_turns_so_that_they_can_come_back() -> None:
    near = [f"near {number}" for number in range(8)]
    doubtful = [f"doubtful {number}" for number in range(10)]
    asked = [next_to_ask(near, doubtful, turn=turn, limit=8) for turn in range(5)]
    assert all(len(one) == 8 for one in asked)
    assert set(doubtful) <= {name for one in asked for name in one}
    assert next_to_ask(near, [], turn=3, limit=8) == near
    assert next_to_ask([], doubtful, turn=0, limit=8) == doubtful[:4]
