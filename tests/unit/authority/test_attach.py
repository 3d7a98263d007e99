"""``tree.attach`` as the fold takes it: by the endpoint's key, in the feed of who takes it in."""

from __future__ import annotations

import pytest

from services.kernel.ids import node_id_of
from tests.fakes.world import World, key_of
from tests.unit.authority.views_kit import outcome

LAPTOP = key_of("endpoint laptop")
NODE = node_id_of(LAPTOP.public_key)


@pytest.fixture
def world():
    world = World(2)
    invite_id, seed = world.invite(world.servers[0], "one")
    assert outcome(world, world.redeem("laptop", invite_id, seed)) is None
    return world


def attach(world: World, at: int, *, key=LAPTOP, **changes):
    body = {"node": NODE, "server": world.servers[at].id, "moves": 1, **changes}
    return world.signed(key, "tree.attach", body)


def test_an_endpoint_moves_and_moves_back(world) -> None:
    assert outcome(world, attach(world, 1), 1) is None
    assert outcome(world, attach(world, 0, moves=2)) is None
    node = world.folded().state.get("tree", NODE)
    assert (node["at"], node["moves"]) == (world.servers[0].id, 2)


@pytest.mark.parametrize(
    ("at", "feed", "changes", "code"),
    [
        (1, 0, {}, "rejected_scope"),
        (1, 1, {"key": key_of("endpoint thief")}, "rejected_unauthorised"),
        (1, 1, {"moves": 0}, "stale"),
        (1, 1, {"moves": True}, "bad_field"),
        (1, 1, {"moves": "1"}, "bad_field"),
        (1, 1, {"hops": 1}, "bad_field"),
        (1, 1, {"node": "00000000-0000-4000-8000-000000000000"}, "rejected_orphan"),
    ],
)
def test_what_has_no_effect(world, at, feed, changes, code) -> None:
    assert outcome(world, attach(world, at, **changes), feed) == code


def test_a_move_twice_counts_once(world) -> None:
    assert outcome(world, attach(world, 1), 1) is None
    assert outcome(world, attach(world, 1), 1) == "stale"
