"""kill -9 at any moment while endpoints join: nothing that was answered for is lost.

SEIPD_KILLS says how often; eight in the usual run, a hundred before a release.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(550), pytest.mark.slow]

KILLS = int(os.environ.get("SEIPD_KILLS", "8"))
JOINER = """
import asyncio, sys, pathlib
from seipd.agent import joining
from seipd.agent.state import AgentState
from services.kernel.errors import SeipdError, ConflictError
token, folder, stop = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
number = 0
while not stop.exists():
    state = AgentState(folder / f"n{number}")
    for _ in range(600):
        try:
            answer = asyncio.run(joining.join(state, token, f"host-{folder.name}-{number}")).mesh
        except SeipdError as error:
            if error.code == "rate_limited":
                import time; time.sleep(1)
            if stop.exists():
                break
            continue
        print(answer["node_id"], answer["tunnel_address"], flush=True)
        break
    number += 1
"""


@pytest.fixture
def one_server():
    with lab_of(1) as lab:
        lab.up(lambda line: None)
        yield lab


def test_pub_14_sto_01_kills_lose_nothing_that_was_answered_for(one_server: Lab) -> None:
    lab, server = one_server, one_server.plan.servers[0]
    token = lab.invite(server, "endpoint", "--uses", "10000")
    stop = lab.plan.folder / "stop"
    answered: list[tuple[str, str]] = []

    def collect(pipe) -> None:
        for line in pipe:
            node_id, address = line.split()
            answered.append((node_id, address))

    joiners = []
    for number in range(2):
        folder = lab.plan.folder / f"joiner{number}"
        folder.mkdir()
        joiner = subprocess.Popen(
            [*server.enter(), sys.executable, "-c", JOINER, token, str(folder), str(stop)],
            stdout=subprocess.PIPE,
            text=True,
            env=lab.environment(server),
        )
        threading.Thread(target=collect, args=(joiner.stdout,), daemon=True).start()
        joiners.append(joiner)
    rng = random.Random(20261121)  # noqa: S311 (repeatable)
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.0, 0.6))
        daemon = lab.daemon_pid(server)
        assert daemon is not None
        os.kill(daemon, signal.SIGKILL)
        while lab.daemon_pid(server) is not None:
            time.sleep(0.01)
        lab.start_server(server)
    until = time.monotonic() + 30
    while len(answered) < 10 and time.monotonic() < until:
        time.sleep(0.2)
    stop.touch()
    for joiner in joiners:
        joiner.wait(timeout=60)
    assert len(answered) >= 10
    nodes = {
        one["node_id"]: one.get("address")
        for customer in lab.seipd_json(server, "tree", "ls")
        for one in lab.seipd_json(server, "tree", "ls", customer["node_id"])
    }
    for node_id, address in answered:
        assert nodes[node_id] == address
    held = [address for address in nodes.values() if address]
    assert len(held) == len(set(held))
    lab.seipd(server, "ledger", "verify")
