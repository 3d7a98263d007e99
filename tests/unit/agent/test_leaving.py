"""Leaving: an answer that the falling tunnel swallowed is no reason to stay."""

from __future__ import annotations

import pytest

from seipd.agent import joining
from seipd.agent.state import AgentState
from services.kernel.errors import (
    ForbiddenError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
)

SERVER = {
    "endpoint": "192.0.2.1:51940",
    "endpoint4": "192.0.2.1:51940",
    "addresses": ["192.0.2.1:9100"],
}
MESH = {
    "mesh_id": "0" * 64,
    "node_id": "00000000-0000-4000-8000-000000000001",
    "authority_pem": "",
    "server": SERVER,
}
LOST = UnavailableError("no answer in time", code="timeout")
OUT = UnauthenticatedError("this key is not in the mesh", code="revoked")


@pytest.fixture
def state(tmp_path):
    made = AgentState(tmp_path / "state")
    made.keys(create=True)
    made.save_mesh(MESH)
    return made


def answers(monkeypatch, *outcomes) -> list[float]:
    """Have the private API end each call so, None being an answer; return the times allowed."""
    left, times = list(outcomes), []

    class Api:
        def __init__(self, mesh, keys) -> None:
            assert mesh == MESH

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            return None

        async def call(self, method, path, body, *, timeout_s):
            times.append(timeout_s)
            outcome = left.pop(0)
            if outcome is not None:
                raise outcome

    monkeypatch.setattr(joining, "PrivateApi", Api)
    return times


@pytest.mark.parametrize(
    "outcomes", [(None,), (OUT,), (LOST, OUT), (LOST, None), (UnreachableError("down"), OUT)]
)
async def test_it_has_left(state, monkeypatch, outcomes) -> None:
    times = answers(monkeypatch, *outcomes)
    await joining.leave(state)
    assert not state.joined
    assert len(times) == len(outcomes)


@pytest.mark.parametrize(
    "outcomes", [(LOST, LOST), (ForbiddenError("no"),), (LOST, UnreachableError("down"))]
)
async def test_it_stays_and_says_why(state, monkeypatch, outcomes) -> None:
    answers(monkeypatch, *outcomes)
    with pytest.raises(type(outcomes[-1])):
        await joining.leave(state)
    assert state.joined
