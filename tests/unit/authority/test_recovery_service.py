"""A recovery key is dealt by itself, each holder speaks for its share, and a bad one is named."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from services.authority.governance import parameters
from services.authority.recovery import view
from services.authority.recovery.view import numbers, threshold_of
from services.base.ledger.state import State
from services.base.signing.dealing import deal_key, open_share
from services.kernel.errors import ConflictError
from services.kernel.ids import b64u_encode
from services.kernel.service import HealthState
from tests.fakes.recovering import DeskInProcess, SharedMesh, service_of
from tests.fakes.world import key_of
from tests.unit.authority.test_governance_view import propose, vote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from services.authority.recovery.service import RecoveryService


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(services: list[RecoveryService]) -> AsyncIterator[None]:
    for one in services:
        await one.start()
    try:
        yield
    finally:
        for one in services:
            await one.stop()


def services_of(mesh: SharedMesh, folder: Path) -> list[RecoveryService]:
    """Return a service for each server; the first has the root."""
    return [
        service_of(mesh, at, folder, holds_root=at == 0) for at in range(len(mesh.world.servers))
    ]


async def test_a_key_is_dealt_to_all_and_in_force_when_enough_found_their_share_good(
    tmp_path: Path,
) -> None:
    mesh = SharedMesh(5)
    services = services_of(mesh, tmp_path)
    async with running(services):
        await until(lambda: numbers(mesh.fold.state) == (1, 1))
        await until(lambda: services[4].describe()["in_force"]["good"] == 5)
        await until(lambda: services[4].describe()["named"])
    shown = services[4].describe()
    assert (shown["in_force"]["threshold"], shown["under_way"]) == (4, None)
    assert {one["server_id"] for one in shown["in_force"]["holders"]} == {
        one.id for one in mesh.world.servers
    }
    assert "4 of 5" in services[1].health().detail
    named = mesh.world.charter.chain.recovery_key
    assert b64u_encode(named) == shown["in_force"]["recovery_key"]


async def test_rkc_15_the_key_is_dealt_anew_when_the_holders_change(tmp_path: Path) -> None:
    mesh = SharedMesh(5)
    services = services_of(mesh, tmp_path)
    async with running(services):
        await until(lambda: numbers(mesh.fold.state) == (1, 1))
        first = services[0].describe()["in_force"]["recovery_key"]
        gone = mesh.world.servers[4]
        await services[4].stop()
        mesh.world.change(mesh.world.servers[0], removed=[mesh.world.removal(gone)])
        for server in mesh.world.servers[:4]:
            server.hlc = max(one.hlc for one in mesh.world.servers)
            mesh.world.name_roster(server)
        mesh.take(mesh.world.servers[0], [])
        await until(lambda: numbers(mesh.fold.state) == (2, 2))
    shown = services[0].describe()["in_force"]
    assert shown["recovery_key"] != first
    assert (shown["threshold"], len(shown["holders"])) == (3, 4)


async def test_holders_that_are_gone_are_told_before_the_root_is_lost(tmp_path: Path) -> None:
    mesh = SharedMesh(5)
    services = services_of(mesh, tmp_path)
    async with running(services):
        await until(lambda: numbers(mesh.fold.state) == (1, 1))
        await until(lambda: services[4].describe()["in_force"]["good"] == 5)
        await until(lambda: services[4].describe()["named"])
        gone = [mesh.world.removal(mesh.world.servers[at]) for at in (3, 4)]
        mesh.world.change(mesh.world.servers[0], removed=gone)
        for server in mesh.world.servers[:3]:
            server.hlc = max(one.hlc for one in mesh.world.servers)
            mesh.world.name_roster(server)
        mesh.take(mesh.world.servers[0], [])
    shown, health = services[0].describe()["in_force"], services[0].health()
    assert (shown["able"], shown["threshold"]) == (3, 4)
    assert [one["said"] for one in shown["holders"]].count("gone") == 2
    assert health.state is HealthState.DEGRADED
    assert "3 are left" in health.detail
    assert "seipd root shares --refresh" in health.detail
    async with running(services[:1]):
        await services[0].deal()
        await until(lambda: services[0].describe()["named"])
    assert (services[0].describe()["in_force"]["offline"], services[0].health().state) == (
        True,
        HealthState.OK,
    )


async def test_the_key_is_dealt_anew_when_another_quorum_was_voted(tmp_path: Path) -> None:
    mesh = SharedMesh(5)
    services = services_of(mesh, tmp_path)
    quorum = {"parameter": parameters.SHARE_QUORUM, "old_value": 75, "new_value": 51}
    async with running(services):
        await until(lambda: numbers(mesh.fold.state) == (1, 1))
        await until(lambda: services[0].describe()["named"])
        first = services[0].describe()["in_force"]["recovery_key"]
        proposal = propose(mesh.world, 0, **quorum)
        for voter in range(3):
            vote(mesh.world, voter, proposal)
        mesh.take(mesh.world.servers[0], [])
        await until(lambda: numbers(mesh.fold.state) == (2, 2))
    shown = services[0].describe()["in_force"]
    assert (shown["threshold"], len(shown["holders"])) == (3, 5)
    assert shown["recovery_key"] != first


async def test_rkc_10_a_share_that_is_not_good_is_told_by_its_holder_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = SharedMesh(5)
    services = services_of(mesh, tmp_path)
    deal = DeskInProcess.deal

    async def cheating(self: DeskInProcess, request: Any) -> Any:
        reply = await deal(self, request)
        sealed = list(reply.sealed)
        sealed[1] = sealed[0]
        return msgspec.structs.replace(reply, sealed=sealed)

    monkeypatch.setattr(DeskInProcess, "deal", cheating)
    async with running(services):
        await until(lambda: numbers(mesh.fold.state) == (1, 1))
        await until(lambda: services[0].health().state is HealthState.DEGRADED)
    holders = services[0].describe()["in_force"]["holders"]
    assert [one["said"] for one in holders].count("good") == 4
    assert holders[1]["said"] == "share_unopened"
    assert "share_unopened" in services[0].health().detail


async def test_below_four_servers_the_operator_gets_a_file(tmp_path: Path) -> None:
    mesh = SharedMesh(3)
    services = services_of(mesh, tmp_path)
    async with running(services):
        found = await services[0].deal()
        await until(lambda: services[2].describe()["named"])
    assert Path(found["path"]).stat().st_mode & 0o777 == 0o600
    assert numbers(mesh.fold.state) == (1, 1)
    assert services[2].describe()["in_force"]["offline"]
    assert "file" in services[2].health().detail


def test_of_a_tier_1_larger_than_the_field_the_first_255_hold_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, everybody = State(), [f"server-{number:016x}" for number in range(300)]
    monkeypatch.setattr(view, "tier1", lambda *_: frozenset(everybody))
    roster = SharedMesh(1).world.charter.at(1)
    holders = view.wanted_holders(state, roster)
    assert list(holders) == everybody[:255]
    assert threshold_of(state, len(holders)) == 192
    keys = [key_of(one).public_key for one in holders]
    dealt = deal_key(
        mesh_id="ab" * 32, number=1, threshold=192, holders=keys, random=secrets.token_bytes
    )
    seed = key_of(holders[254]).seed
    assert open_share(seed, dealt.sealed[254], index=255, dealing=dealt.dealing)


async def test_only_where_the_root_is_can_be_dealt(tmp_path: Path) -> None:
    mesh = SharedMesh(4)
    services = services_of(mesh, tmp_path)
    with pytest.raises(ConflictError) as caught:
        await services[1].deal()
    assert caught.value.code == "no_root_here"
