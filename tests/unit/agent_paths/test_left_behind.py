"""An agent that was killed left others who go on sending to it: they are told after its start."""

from __future__ import annotations

import pytest

from seipd.agent.paths.composing import left_behind
from seipd.agent.state import AgentState
from services.base.storage.files import make_private_dir, write_atomic
from services.kernel import canonical


@pytest.fixture
def state(tmp_path) -> AgentState:
    state = AgentState(tmp_path / "state")
    make_private_dir(state.run)
    return state


def test_those_with_a_tunnel_of_their_own_are_told(state):
    held = [
        {"address": "10.64.0.11", "path": "direct"},
        {"address": "10.64.0.12", "path": "server"},
        {"address": "10.64.0.13", "path": "relay"},
    ]
    write_atomic(state.run / "status.json", canonical.encode({"paths": {"held": held}}))
    assert left_behind(state) == ["10.64.0.11", "10.64.0.13"]


@pytest.mark.parametrize("data", [b"", b"{", b'{"paths":{}}', b'{"paths":{"held":[1]}}'])
def test_a_damaged_status_tells_nobody(state, data):
    write_atomic(state.run / "status.json", data)
    assert left_behind(state) == []


def test_without_a_status_nobody_is_told(state):
    assert left_behind(state) == []
