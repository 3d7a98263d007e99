"""Rotating the root: one call, nothing restarts; certificates are signed anew; windows close."""

from __future__ import annotations

import asyncio

import pytest

from seipd.client.trust import KnownRoot, UntrustedServerError, trust_server
from seipd.daemon.genesis import verify_charter
from services.authority.rootkeys import rotation
from services.authority.rootkeys.rotating import DAY_MS, due_ms
from services.authority.rootkeys.rotation import RotationService
from services.authority.rootkeys.seen import RootSeen
from services.base.ledger.rootwalk import follow_chain, shown_chain
from services.kernel.errors import (
    ConflictError,
    InputError,
    SeipdError,
    StorageError,
    UnavailableError,
)
from services.kernel.invitations import decode_token
from services.kernel.service import HealthState
from tests.fakes.one_server import LOOK_S, OneServer

MINUTE_MS = 60_000


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path)
    yield one
    await one.rotation.stop()
    await one.stop()


def chain_of(server: OneServer):
    return server.ledger.charter.chain


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_next_key_signs_what_comes(server) -> None:
    await server.rotation.rotate()
    chain = chain_of(server)
    assert [one.generation for one in chain.generations] == [1, 2]
    assert chain.newest.public_key == server.signer.keys["root-2"].public_key
    shown = server.root_keys.describe()
    assert [one["state"] for one in shown] == ["rotating", "active"]
    assert shown[1]["endorsed_by"] == "root"
    assert await server.rotation.go_on()
    newest = server.ledger.charter.records[-1]
    assert newest.actor == chain.newest.public_key
    assert server.ledger.charter.certified_at(server.ledger.server_id) > chain.newest.number


async def test_a_window_closes_once_it_is_over_and_the_next_rotation_waits_for_it(server) -> None:
    await server.rotation.rotate(overlap_ms=MINUTE_MS)
    with pytest.raises(ConflictError) as refused:
        await server.rotation.rotate()
    assert refused.value.code == "rotation_in_progress"
    assert await server.rotation.go_on()
    assert not await server.rotation.go_on()
    server.clock.shift_ms = MINUTE_MS + 1000
    assert await server.rotation.go_on()
    assert chain_of(server).generations[0].is_closed
    assert server.root_keys.describe()[0]["state"] == "retired"
    assert not await server.rotation.go_on()
    await server.rotation.rotate()
    assert chain_of(server).newest.generation == 3


@pytest.mark.parametrize("overlap_ms", [0, -1, 9_999, 31 * 86_400_000])
async def test_an_overlap_that_can_not_be_is_refused(server, overlap_ms) -> None:
    with pytest.raises(InputError) as refused:
        await server.rotation.rotate(overlap_ms=overlap_ms)
    assert refused.value.code == "bad_overlap"
    assert chain_of(server).newest.generation == 1


async def test_it_rotates_by_itself_when_the_interval_is_over(server) -> None:
    await server.rotation.start()
    server.clock.shift_ms = 86_400_000 + 1000
    await until(lambda: chain_of(server).newest.generation == 2)
    await until(lambda: server.ledger.charter.number > chain_of(server).newest.number)
    server.clock.shift_ms += MINUTE_MS + 1000
    await until(lambda: chain_of(server).generations[0].is_closed)
    assert [row["state"] for row in server.root_keys.describe()] == ["retired", "active"]


async def test_a_clock_that_jumps_rotates_nothing_by_itself_until_it_went_evenly(
    server, monkeypatch
) -> None:
    monkeypatch.setattr(rotation, "RETRY_S", LOOK_S)
    await server.rotation.start()
    looks = looks_of(server.rotation)
    await until(lambda: len(looks) > 3)
    server.clock.set_by_ms = 400 * 86_400_000
    await until(lambda: "clock jumped" in server.rotation.health().detail)
    assert list(server.signer.keys) == ["root-1"]
    # Set right again: that is a jump, too, and nothing is due.
    server.clock.set_by_ms = 0
    await until(lambda: server.rotation.health().state is HealthState.OK)
    assert list(server.signer.keys) == ["root-1"]
    server.clock.shift_ms = 86_400_000 + 1000
    await until(lambda: chain_of(server).newest.generation == 2)


async def test_who_says_so_rotates_at_once_though_the_clock_was_set(server) -> None:
    await server.rotation.start()
    server.clock.set_by_ms = 2 * 86_400_000
    await server.rotation.rotate()
    assert chain_of(server).newest.generation == 2


async def test_no_window_opens_where_the_mesh_can_not_be_told(server) -> None:
    server.ledger.mind_clock(lambda: "this server's clock is off")
    with pytest.raises(UnavailableError) as refused:
        await server.rotation.rotate()
    assert refused.value.code == "clock_off"
    assert (list(server.signer.keys), server.signer.windows) == (["root-1"], {})


async def test_a_longer_interval_that_was_voted_lets_no_key_expire(server) -> None:
    life_ms = chain_of(server).newest.expires_ms - chain_of(server).newest.activated_ms
    long_ms = 3 * life_ms
    assert due_ms(chain_of(server).newest, long_ms) < chain_of(server).newest.expires_ms
    server.rotation._interval_ms = lambda: long_ms
    await server.rotation.start()
    server.clock.shift_ms = life_ms // 2 + 1000
    await until(lambda: chain_of(server).newest.generation == 2)
    # From the next key on it holds: that one lives for two of the long ones.
    newest = chain_of(server).newest
    assert due_ms(newest, long_ms) == newest.activated_ms + long_ms


async def test_what_was_cut_off_after_the_key_was_made_is_finished_at_the_next_start(server):
    signs = server.signer.sign

    async def away(*_args, **_named):
        raise UnavailableError("the signer does not answer", code="signer_unavailable")

    server.signer.sign = away
    with pytest.raises(UnavailableError):
        await server.rotation.rotate()
    assert chain_of(server).newest.generation == 1
    made = server.signer.keys["root-2"].public_key
    server.signer.sign = signs
    await server.rotation.start()
    await until(lambda: chain_of(server).newest.generation == 2)
    assert chain_of(server).newest.public_key == made


async def test_a_signer_that_has_an_old_root_is_told_to_go_and_not_asked_all_the_time(
    server,
) -> None:
    asks = server.signer.public_key
    asked: list[str] = []

    async def counted(*, scope: str, key_id: str):
        asked.append(key_id)
        return await asks(scope=scope, key_id=key_id)

    server.signer.public_key = counted
    newest = server.signer.keys.pop("root-1")
    await server.rotation.start()
    await until(lambda: server.root_keys.health().state is HealthState.DEGRADED)
    assert "on another server by now" in server.root_keys.health().detail
    server.clock.shift_ms = 5 * MINUTE_MS
    looks, before = looks_of(server.rotation), len(asked)
    await until(lambda: len(looks) > 20)
    assert len(asked) == before
    server.signer.keys["root-1"] = newest
    server.clock.shift_ms = 15 * MINUTE_MS
    await until(lambda: server.root_keys.health().state is HealthState.OK)


def looks_of(rotation: RotationService) -> list[None]:
    looks: list[None] = []
    remember = rotation._remember
    rotation._remember = lambda: (looks.append(None), remember())
    return looks


async def test_an_expired_root_signs_nothing_but_its_successor(server) -> None:
    server.clock.shift_ms = 30 * 86_400_000
    with pytest.raises(SeipdError) as refused:
        await server.root_keys.sign_record("roster.change", {})
    assert refused.value.code == "root_expired"
    await server.rotation.rotate()
    assert await server.rotation.go_on()


async def test_tokens_of_every_generation_lead_to_the_server(server) -> None:
    old = decode_token(await server.token())
    await server.rotation.rotate()
    await server.rotation.go_on()
    new = decode_token(await server.token())
    assert (old.root_generation, new.root_generation) == (1, 2)
    charter = server.ledger.charter
    shown = {
        "server_id": server.ledger.server_id,
        "authority_pem": server.tls.authority_pem.decode(),
        "chain": [one.value() for one in shown_chain(charter)],
        "certificate": charter.records[-1].value(),
    }
    for token in (old, new):
        known = KnownRoot(generation=token.root_generation, fingerprint=token.root_fingerprint)
        found = trust_server(shown, mesh_id=token.mesh_id, server_id=None, root=known)
        assert found.certificate.server_id == server.ledger.server_id
    short = {**shown, "chain": shown["chain"][:1], "certificate": charter.records[1].value()}
    trust_server(short, mesh_id=old.mesh_id, server_id=None)
    with pytest.raises(UntrustedServerError, match="do not lead to the token"):
        trust_server(short, mesh_id=new.mesh_id, server_id=None, root=known)


async def test_rkc_05_a_certificate_by_the_key_before_is_refused_after_its_window(server) -> None:
    old = server.ledger.charter.records[-1].value()
    await server.rotation.rotate(overlap_ms=MINUTE_MS)
    closes_ms = chain_of(server).generations[0].closes_ms
    charter = server.ledger.charter
    shown = {
        "server_id": server.ledger.server_id,
        "authority_pem": server.tls.authority_pem.decode(),
        "chain": [one.value() for one in shown_chain(charter)],
        "certificate": old,
    }
    asked = {"mesh_id": server.ledger.mesh_id, "server_id": None}
    trust_server(shown, **asked, now_ms=closes_ms)
    with pytest.raises(UntrustedServerError, match="window has closed"):
        trust_server(shown, **asked, now_ms=closes_ms + 1)


async def test_the_chain_is_followed_from_the_genesis(server) -> None:
    for _ in range(3):
        await server.rotation.rotate(overlap_ms=MINUTE_MS)
        await server.rotation.go_on()
        server.clock.shift_ms += MINUTE_MS + 1000
        await server.rotation.go_on()
    walk = follow_chain(shown_chain(server.ledger.charter), server.ledger.mesh_id)
    assert walk.chain.newest.public_key == chain_of(server).newest.public_key


async def test_rkc_04_a_new_key_is_on_the_disk_before_anybody_is_answered(server, tmp_path) -> None:
    rare = RotationService(
        ledger=server.ledger,
        root_keys=server.root_keys,
        rotator=server.signer,
        interval_ms=lambda: DAY_MS,
        overlap_ms=MINUTE_MS,
        seen=RootSeen(tmp_path / "seen" / "root_seen.json"),
        clock=server.clock,
        look_s=3600,
    )
    await rare.start()
    await rare.rotate()
    newest = chain_of(server).newest
    assert server.kept[-1][newest.number].actor == newest.public_key
    again = RootSeen(tmp_path / "seen" / "root_seen.json")
    again.load()
    assert "ROLLBACK_DETECTED" in again.trouble(verify_charter(server.records).chain)
    assert again.trouble(verify_charter(server.kept[-1]).chain) == ""
    await rare.stop()


async def test_a_chain_that_can_not_be_saved_is_saved_later(server) -> None:
    kept, refusals = server.kept, [StorageError("the disk is full")]

    def remember(records) -> None:
        if refusals:
            raise refusals.pop()
        kept.append(records)

    server.ledger._upkeep._epochs._remember = remember
    await server.rotation.rotate()
    newest = chain_of(server).newest
    assert refusals == []
    assert kept[-1][newest.number].actor == newest.public_key
