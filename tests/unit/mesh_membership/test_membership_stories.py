"""What fifty servers come to believe of one of them. Every story names its seed and replays."""

from __future__ import annotations

import pytest

from services.mesh.membership.states import State
from tests.unit.mesh_membership.membership_kit import Net

SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_server_is_known_dead_by_all_within_five_seconds(seed: int) -> None:
    net = Net(50, seed=seed, loss=0.05)
    net.run(5 + net.rng.random())
    victim = net.rng.choice(net.names())
    net.kill(victim)
    took_s = net.run_until(lambda: net.states_of(victim) == {State.DEAD}, at_most_s=10)
    assert took_s <= 5.1, f"seed {seed}: {took_s} s"
    assert {name for _, _, name in net.deaths()} == {victim}
