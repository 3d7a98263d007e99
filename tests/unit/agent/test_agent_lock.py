"""One agent for one endpoint; and what of it fails begins anew."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from seipd.agent import background
from seipd.agent.lock import only_agent, running_agent
from seipd.agent.state import AgentState
from seipd.agent.steady import AGAIN_S, steadily
from seipd.agent.wanted import Tunnel
from services.kernel.errors import ConflictError

TUNNEL = Tunnel(interface="seip1", backend="auto", signer_count=0, sets_dns=False, domains=())


@pytest.fixture
def state(tmp_path) -> AgentState:
    return AgentState(tmp_path)


def test_cli_10_a_second_agent_is_refused_and_told_whose_turn_it_is(state) -> None:
    assert running_agent(state) is None
    with only_agent(state, "seip1"):
        assert running_agent(state) == os.getpid()
        with (
            pytest.raises(ConflictError, match=f"pid {os.getpid()}") as caught,
            only_agent(state, "seip1"),
        ):
            pytest.fail("two agents at once")
        assert caught.value.code == "locked"
        assert running_agent(state) == os.getpid(), "the one that was refused took nothing away"
    assert running_agent(state) is None


def test_cli_02_the_lock_goes_with_the_process_that_had_it(state) -> None:
    words = (
        "import sys, pathlib\n"
        "from seipd.agent.lock import only_agent\n"
        "from seipd.agent.state import AgentState\n"
        "with only_agent(AgentState(pathlib.Path(sys.argv[1])), 'seip1'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", words, str(state.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout.readline() == b"held\n"
        assert running_agent(state) == child.pid
    finally:
        child.kill()
        child.communicate()
    with only_agent(state, "seip1"):
        assert running_agent(state) == os.getpid()


def test_cli_11_who_interrupts_seip_up_has_no_agent_left(state, monkeypatch) -> None:
    children, looks = [], []
    real = subprocess.Popen

    def popen(command, **options):
        assert "run" in command
        children.append(real(["sleep", "600"], **options))
        return children[-1]

    def read_status(_):
        looks.append(1)
        if len(looks) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(background.subprocess, "Popen", popen)
    monkeypatch.setattr(background, "read_status", read_status)
    with pytest.raises(KeyboardInterrupt):
        background.start_in_background(state, TUNNEL)
    assert [child.poll() for child in children] == [-15]


def test_an_agent_that_has_only_just_begun_is_not_begun_twice(state, monkeypatch) -> None:
    monkeypatch.setattr(
        background.subprocess, "Popen", lambda *_, **__: pytest.fail("another agent")
    )
    monkeypatch.setattr(background, "UP_TIMEOUT_S", 0.0)
    with (
        only_agent(state, "seip1"),
        pytest.raises(background.UnavailableError, match="goes on trying"),
    ):
        background.start_in_background(state, TUNNEL)


async def test_cli_13_what_fails_begins_anew_later_and_later() -> None:
    pauses, count = [], 0

    async def work() -> None:
        nonlocal count
        count += 1
        if count < len(AGAIN_S) + 3:
            raise KeyError("a fault of the program")

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    await steadily(work, "the work", sleep=sleep, now_s=lambda: 0.0)
    assert pauses == [*AGAIN_S, AGAIN_S[-1], AGAIN_S[-1]]


async def test_cli_13_what_went_well_for_long_begins_anew_at_once() -> None:
    pauses, now_s, count = [], 0.0, 0

    async def work() -> None:
        nonlocal count, now_s
        count += 1
        now_s += 3600.0
        if count < 4:
            raise KeyError("a fault of the program, once an hour")

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    await steadily(work, "the work", sleep=sleep, now_s=lambda: now_s)
    assert pauses == [AGAIN_S[0]] * 3
