"""Membership over a long time and in a large mesh."""

from __future__ import annotations

import pytest

from services.mesh.membership.states import State
from tests.unit.mesh_membership.membership_kit import Net

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.long
@pytest.mark.parametrize("seed", [7])
def test_nobody_is_declared_dead_in_an_hour_at_five_percent_loss(seed: int) -> None:
    net = Net(50, seed=seed, loss=0.05)
    net.run(3600.0)
    assert net.deaths() == [], f"seed {seed}"
    assert all(net.states_of(name) == {State.ALIVE} for name in net.names())


@pytest.mark.parametrize("first", [0, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_server_is_known_dead_within_five_seconds_whatever_the_seed(first: int) -> None:
    late = {}
    for seed in range(100 + first, 120 + first):
        net = Net(50, seed=seed, loss=0.05)
        net.run(3 + net.rng.random() * 2)
        victim = net.rng.choice(net.names())
        killed_s = net.now_s
        net.kill(victim)
        net.run(5.0)
        if net.states_of(victim) != {State.DEAD} or len(net.deaths()) != 49:
            late[seed] = killed_s
    assert not late, f"seeds {late}"


def test_a_thousand_servers_at_peace_say_less_than_two_kilobytes_a_second() -> None:
    net = Net(1000, seed=1, loss=0.0, settled=True)
    for host in net.hosts.values():
        host.sessions.clear()
    net.run(10.0)
    both = sum(host.sent_bytes + host.received_bytes for host in net.hosts.values()) / 10_000
    print(f"1000 servers: {both:.0f} bytes a second and server, both ways")  # noqa: T201
    assert net.deaths() == []
    assert both < 2048
