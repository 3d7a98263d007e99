"""An operator brings a new protocol version into force; a server that lacks it says so."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.base.ledger.ticks import StateWord
from services.kernel import versions
from services.kernel.errors import UnavailableError
from services.kernel.service import HealthState

if TYPE_CHECKING:
    from tests.fakes.one_server import OneServer


@pytest.fixture
def migrate(seipd):
    """Run ``seipd migrate``."""
    return functools.partial(seipd, "migrate")


def neighbour_says(one: OneServer, protocol: int | None) -> None:
    load = None if protocol is None else {"protocol": protocol}
    one.services.mesh.servers = lambda: [
        {"server_id": one.ledger.server_id, "load": {"protocol": 1}},
        {"server_id": "server-neighbour", "load": load},
    ]


async def test_it_is_activated_once_all_know_it(one, migrate, monkeypatch) -> None:
    monkeypatch.setattr(versions, "KNOWN_VERSION", 2)
    neighbour_says(one, 2)
    done = await migrate("--activate", "2", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["in_force"] == 2
    assert one.ledger.state.get("mesh", "protocol") == {"version": 2}
    shown = json.loads((await migrate("--json")).stdout)
    assert (shown["in_force"], shown["known"]) == (2, 2)
    # The mesh goes on writing.
    assert await one.token()


@pytest.mark.parametrize("says", [1, None])
async def test_a_server_that_lacks_it_is_named_and_left_behind_by_force_alone(
    one, migrate, monkeypatch, says
) -> None:
    monkeypatch.setattr(versions, "KNOWN_VERSION", 2)
    neighbour_says(one, says)
    refused = await migrate("--activate", "2", "--yes")
    assert refused.returncode == 6
    assert "server-neighbour" in refused.stderr
    assert one.ledger.state.get("mesh", "protocol") is None
    assert (await migrate("--activate", "2", "--yes", "--force")).returncode == 0
    assert one.ledger.state.get("mesh", "protocol") == {"version": 2}


async def test_a_version_that_this_server_lacks_is_refused_even_by_force(one, migrate) -> None:
    refused = await migrate("--activate", "2", "--yes", "--force")
    assert refused.returncode == 6
    assert "knows protocol versions up to 1" in refused.stderr
    assert one.ledger.state.get("mesh", "protocol") is None


async def test_nobody_is_asked_where_nobody_is(one, migrate) -> None:
    refused = await migrate("--activate", "2")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr


async def test_versions_are_the_operators_alone(one) -> None:
    for app in ("public", "private"):
        async with TestClient(TestServer(one.app(app))) as client:
            answer = await client.post("/api/protocol/activate", json={"version": 2})
            assert answer.status in {401, 404}


async def test_a_server_that_lacks_the_version_in_force_says_so_and_signs_no_state(
    one, monkeypatch
) -> None:
    word = StateWord(
        time_ms=0, roster_number=0, roster_hash=bytes(32), feeds_hash=bytes(32), root=bytes(32)
    )
    monkeypatch.setattr(versions, "KNOWN_VERSION", 2)
    await one.root_keys.activate(2, told={})
    (one.folder / "ledger/state").unlink(missing_ok=True)
    monkeypatch.setattr(versions, "KNOWN_VERSION", 1)
    health = one.ledger.health()
    assert health.state is HealthState.FAILED
    assert "protocol version 2" in health.detail
    assert "upgrade seipd" in health.detail
    with pytest.raises(UnavailableError) as caught:
        await one.token()
    assert caught.value.code == "read_only"
    with pytest.raises(UnavailableError) as caught:
        await one.ledger.state_file(word)
    assert caught.value.code == "no_agreed_state"
    await one.ledger.save_snapshot()
    assert not (one.folder / "ledger/state").exists()
    # Upgraded, it goes on.
    monkeypatch.setattr(versions, "KNOWN_VERSION", 2)
    assert one.ledger.health().state is HealthState.OK
    assert await one.token()
