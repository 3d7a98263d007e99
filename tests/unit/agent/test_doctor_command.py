"""``seip doctor NAME``: what is told of the path to one endpoint."""

from __future__ import annotations

import subprocess

import pytest
from click.testing import CliRunner

from seipd.agent import background, doctor, peer_commands
from seipd.agent.diagnosis import Finding
from seipd.agent.main import seip_group
from services.kernel.errors import NotFoundError

PEER = {
    "node_id": "00000000-0000-4000-8000-000000000001",
    "name": "e2",
    "address": "10.64.0.11",
    "address6": "fd00::11",
    "trust": "proven",
    "why": "",
    "path": "server",
}
HELD = {
    **{name: PEER[name] for name in ("node_id", "name", "address")},
    "path": "relay",
    "why": "no ping came through",
    "phase": "carrying",
    "latency_us": 900,
    "endpoint": "198.18.0.11:9104",
    "last_handshake_seconds": 3,
    "rx_bytes": 10,
    "tx_bytes": 10,
}
RUNNING = {"paths": {"mode": "mesh", "why_none": "", "is_symmetric": True, "held": [HELD]}}
WRONG = Finding(code="udp_blocked", what="UDP is blocked on the way", mend="let UDP out")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """An endpoint that is well, and a peer that answers; a test may change both."""
    found: list[Finding] = []
    answers = [0]

    async def examined(state) -> list[Finding]:
        return list(found)

    async def fetched(context, state) -> list[dict]:
        return [PEER]

    def run(words, **_) -> subprocess.CompletedProcess:
        assert words[-1] == PEER["address"]
        return subprocess.CompletedProcess(words, answers[0])

    monkeypatch.setattr(doctor, "examine_endpoint", examined)
    monkeypatch.setattr(peer_commands, "fetch_peers", fetched)
    monkeypatch.setattr(background, "read_status", lambda _: RUNNING)
    monkeypatch.setattr(subprocess, "run", run)
    return found, answers


def seip(*words: str):
    return CliRunner().invoke(
        seip_group(), [*words, "--state", "/nowhere"], catch_exceptions=False, standalone_mode=False
    )


def test_a_peer_over_a_relay_is_well_and_the_reason_is_told(machine) -> None:
    done = seip("doctor", "e2")
    assert done.return_value == 0
    said = "e2 is reached over a relay, which sees only ciphertext: no ping came through"
    assert done.output.splitlines()[-2:] == ["nothing is wrong", said]


def test_a_peer_that_does_not_answer_is_wrong(machine) -> None:
    machine[1][0] = 1
    done = seip("doctor", PEER["address"])
    assert done.return_value == 1
    assert "error: e2 does not answer — " in done.output
    assert "nothing is wrong" not in done.output


def test_where_the_endpoint_itself_is_ill_the_peer_is_not_asked(machine) -> None:
    machine[0].append(WRONG)
    done = seip("doctor", "e2")
    assert done.return_value == 1
    assert "error: UDP is blocked on the way — let UDP out" in done.output
    assert "e2" not in done.output


def test_findings_are_data(machine) -> None:
    machine[0].append(WRONG)
    assert '"code":"udp_blocked"' in seip("doctor", "--json").output.replace(" ", "")


def test_nobody_of_that_name(machine) -> None:
    with pytest.raises(NotFoundError, match="no endpoint is called e9"):
        seip("doctor", "e9")
