"""Whatever happens to a mesh, once it is healed its servers agree and have kept their word.

One seed again: ``python -m pytest tests/sim -k replay --seed N --servers 20``. Many seeds:
``python tests/sim/run.py --seeds 500 --servers 20``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.sim.liars import Liar
from tests.sim.mesh import Mesh, MeshOptions
from tests.sim.network import LinkModel
from tests.sim.plan import CHAOS_S, Crash, Cut, Plan, Save, Step
from tests.sim.root_holder import RosterStep, Task
from tests.sim.scenario import play

pytestmark = pytest.mark.slow

SERVERS = 6
MOMENTS = st.floats(0, CHAOS_S, allow_nan=False)
ANYONE = st.integers(0, SERVERS - 1)

PLANS = st.builds(
    Plan,
    link=st.builds(
        LinkModel,
        delay_s=st.sampled_from((0.005, 0.1)),
        jitter_s=st.sampled_from((0.0, 0.15)),
        loss=st.sampled_from((0.0, 0.05, 0.2)),
        double=st.sampled_from((0.0, 0.1)),
        late=st.sampled_from((0.0, 0.02)),
    ),
    skews_ms=st.lists(st.integers(-20_000, 20_000), max_size=SERVERS).map(tuple),
    crashes=st.lists(
        st.builds(Crash, at_s=MOMENTS, who=ANYONE, down_s=st.floats(0.1, 20)), max_size=5
    ).map(tuple),
    cuts=st.lists(
        st.builds(
            Cut,
            at_s=MOMENTS,
            these=st.frozensets(ANYONE, min_size=1, max_size=SERVERS // 2),
            for_s=st.floats(1, 30),
            one_way=st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
    steps=st.lists(
        st.builds(Step, at_s=MOMENTS, who=ANYONE, by_ms=st.integers(-20_000, 20_000)), max_size=2
    ).map(tuple),
    saves=st.lists(st.builds(Save, at_s=MOMENTS, who=ANYONE), max_size=5).map(tuple),
    retain_settled=st.sampled_from((16, 4096)),
    wishes_s=st.sampled_from((2.0, 6.0)),
    backbone=st.booleans(),
    roster=st.lists(
        st.builds(
            RosterStep,
            at_s=MOMENTS,
            task=st.just(Task.ROTATE),
            overlap_s=st.floats(0, 20),
        ),
        max_size=2,
    ).map(tuple),
)


def test_three_servers_agree_on_one_state() -> None:
    mesh = Mesh(1, MeshOptions(servers=3, witnesses=3))
    mesh.start()
    assert mesh.run_until_quiet(at_most_s=30)
    assert len({server.ledger.fold.state.root() for server in mesh.all}) == 1
    assert mesh.all[2].ledger.fold.state.get("tree", mesh.founding.customer)["name"] == "default"


@settings(
    max_examples=int(os.environ.get("SEIPD_SIM_EXAMPLES", "4")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), plan=PLANS)
def test_whatever_happens_the_servers_agree_in_the_end(seed, plan) -> None:
    outcome = play(seed, servers=SERVERS, plan=plan)
    note(f"{outcome}")
    assert not outcome.broken


def test_a_seed_gives_its_mix_of_faults() -> None:
    assert play(1, servers=SERVERS).broken == ""


def test_the_root_is_rotated_twice_over_a_cut_and_a_kill() -> None:
    plan = Plan(
        link=LinkModel(delay_s=0.03, loss=0.05),
        wishes_s=4.0,
        crashes=(Crash(at_s=6.0, who=2, down_s=15.0),),
        cuts=(Cut(at_s=4.0, these=frozenset({0, 1}), for_s=20.0),),
        roster=tuple(
            RosterStep(at_s=at_s, task=Task.ROTATE, overlap_s=3.0) for at_s in (5.0, 25.0)
        ),
    )
    outcome = play(7, servers=5, plan=plan)
    assert not outcome.broken, f"{outcome}"
    assert outcome.generation == 3


@pytest.mark.parametrize("kind", ["fork", "junk", "backdate"])
def test_the_honest_agree_whatever_one_server_says(kind) -> None:
    plan = Plan(
        link=LinkModel(delay_s=0.03, loss=0.02),
        wishes_s=4.0,
        liars=(Liar(at_s=8.0, who=4, kind=kind),),
    )
    outcome = play(11, servers=5, plan=plan)
    assert not outcome.broken, f"{outcome}"


def test_replay_of_the_seed_that_is_asked_for(request) -> None:
    seed = request.config.getoption("--seed", default=None)
    if seed is None:
        pytest.skip("no --seed was given")
    outcome = play(seed, servers=request.config.getoption("--servers", default=20))
    assert not outcome.broken, f"seed {seed}: {outcome}"


def test_a_seed_plays_the_same_in_every_process() -> None:
    """Two processes with other hash seeds: every datagram at the same time, the same state."""
    root = Path(__file__).resolve().parents[2]
    code = (
        "from tests.sim.scenario import play\n"
        "one = play(5, servers=4)\n"
        "print(one.trace, one.state_hash, one.answered)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(said) == 1, said
