"""Leaving: an answer that the falling tunnel swallowed is no reason to stay."""

from __future__ import annotations

import pytest

from seipd.agent import background, joining
from seipd.agent.hostdns import ways
from seipd.agent.main import seip_group
from seipd.agent.state import AgentState
from seipd.cli.group import run_group
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
    assert state.joined, "until its tunnel is down, nobody else could take that down"
    assert len(times) == len(outcomes)


@pytest.mark.parametrize(
    "outcomes", [(LOST, LOST), (ForbiddenError("no"),), (LOST, UnreachableError("down"))]
)
async def test_it_stays_and_says_why(state, monkeypatch, outcomes) -> None:
    answers(monkeypatch, *outcomes)
    with pytest.raises(type(outcomes[-1])) as caught:
        await joining.leave(state)
    assert ("sudo seip up first" in caught.value.mend) is (len(outcomes) == 2)
    assert state.joined


def test_who_was_killed_while_leaving_comes_down_and_leaves(state, monkeypatch, capsys) -> None:
    """The mesh forgot it; of this machine's files all are gone but the last one."""
    taken = []

    async def removed(*_) -> bool:
        taken.append(1)
        return True

    monkeypatch.setattr(background, "remove_tunnel", removed)
    monkeypatch.setattr(ways, "restore_file", lambda _: None)
    for name in ("mesh.json", "mesh-ca.pem"):
        (state.folder / name).unlink()
    monkeypatch.setattr("sys.argv", ["seip", "--state", str(state.folder), "down"])
    assert run_group(seip_group(), "seip") == 0
    assert taken
    assert capsys.readouterr().out == "down\n"


def test_who_never_joined_is_told_so_and_gets_no_folder(tmp_path, monkeypatch, capsys) -> None:
    folder = tmp_path / "none"
    monkeypatch.setattr("sys.argv", ["seip", "--state", str(folder), "down"])
    assert run_group(seip_group(), "seip") == 5
    assert "has not joined a mesh" in capsys.readouterr().err
    assert not folder.exists()
