"""Moves are counted; who was put back and counts less than the mesh moves all the same."""

from __future__ import annotations

import types

import pytest
from aiohttp.test_utils import TestServer

from seipd.agent import joining, moving
from seipd.agent.state import AgentState
from services.kernel.errors import RejectedError, StorageError
from tests.fakes.one_server import OneServer
from tests.fakes.public_https import public_https


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "server")
    yield one
    await one.stop()


@pytest.fixture
async def address(server):
    async with public_https(server) as place:
        yield place


@pytest.fixture
async def state(server, tmp_path, monkeypatch):
    """An endpoint that has joined."""
    made = AgentState(tmp_path / "seip")
    async with TestServer(server.app("public")) as http:
        trusted = types.SimpleNamespace(
            authority_pem=server.tls.authority_pem.decode(),
            change=server.records[-1],
            chain=(),
            clock_ahead_ms=0,
        )

        async def reach(invitation):
            return f"http://127.0.0.1:{http.port}", trusted

        monkeypatch.setattr(joining, "reach_server", reach)
        await joining.join(made, await server.token(name="e1"), None)
    return made


def moves_in_the_mesh(server, state: AgentState) -> int:
    return server.ledger.state.get("tree", state.mesh()["node_id"])["moves"]


async def test_a_state_that_was_put_back_is_no_reason_to_stay(server, state, address) -> None:
    old = state.mesh()
    for _ in range(20):
        await moving.attach(state, server.ledger.server_id, address)
    assert moves_in_the_mesh(server, state) == state.mesh()["moves"] == 20
    state.save_mesh(old)
    mesh = await moving.attach(state, server.ledger.server_id, address)
    assert mesh["moves"] == state.mesh()["moves"] == moves_in_the_mesh(server, state) > 20


async def test_what_else_a_server_refuses_is_said_once(server, state, address, monkeypatch) -> None:
    monkeypatch.setattr(moving, "STALE", "something else")
    old = state.mesh()
    for _ in range(3):
        await moving.attach(state, server.ledger.server_id, address)
    state.save_mesh(old)
    with pytest.raises(RejectedError) as caught:
        await moving.attach(state, server.ledger.server_id, address)
    assert caught.value.code == "stale"
    assert state.mesh()["moves"] == 1


async def test_a_full_disk_holds_nobody_at_a_dead_server(
    server, state, address, monkeypatch
) -> None:
    def full(self, value) -> None:
        raise StorageError("cannot write mesh.json: No space left on device")

    monkeypatch.setattr(AgentState, "save_mesh", full)
    for _ in range(2):
        mesh = await moving.attach(state, server.ledger.server_id, address)
        assert mesh["moves"] == moves_in_the_mesh(server, state) > 0
    assert state.mesh().get("moves", 0) == 0
