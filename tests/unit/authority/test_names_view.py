"""Who is ns1 to ns9: the same answer on every server, and no name for two."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.authority.names.view import CLAIM_KIND, slots_held
from tests.fakes.world import World, key_of


def claim(world: World, by: int, body: dict, key=None) -> str:
    server = world.servers[by]
    server.hlc = max(one.hlc for one in world.servers)
    record = world.signed(key or server.key, CLAIM_KIND, body)
    world.write(server, record)
    return record.id


def refusal(world: World, record_id: str) -> str | None:
    return world.folded().items_of([record_id])[0].refusal


def test_the_first_claim_has_the_slot_and_the_next_is_told() -> None:
    world = World(3)
    first, second = claim(world, 1, {"slot": 1}), claim(world, 2, {"slot": 1})
    assert refusal(world, first) is None
    assert refusal(world, second) == "slot_taken"
    assert world.folded().state.get("ns", "1") == {"server": world.servers[1].id}


def test_a_server_has_one_slot() -> None:
    world = World(2)
    claim(world, 1, {"slot": 1})
    assert refusal(world, claim(world, 1, {"slot": 2})) == "slot_held"


@pytest.mark.parametrize(
    "body", [{}, {"slot": 0}, {"slot": 10}, {"slot": "1"}, {"slot": True}, {"slot": 1, "x": 1}]
)
def test_a_claim_names_one_slot_from_1_to_9(body) -> None:
    world = World(2)
    assert refusal(world, claim(world, 1, body)) == "bad_slot"


@pytest.mark.parametrize("by", ["root", "server 1", "endpoint laptop"])
def test_a_server_claims_only_for_itself(by) -> None:
    world = World(2)
    record = claim(world, 0, {"slot": 1}, key=key_of(by))
    assert refusal(world, record) == "rejected_unauthorised"


def test_a_removed_server_s_slot_is_free_again() -> None:
    world = World(3)
    claim(world, 1, {"slot": 1})
    gone = world.servers[1]
    world.servers[0].hlc = max(one.hlc for one in world.servers)
    world.change(world.servers[0], removed=[world.removal(gone)])
    world.name_roster(world.servers[2])
    again = claim(world, 2, {"slot": 1})
    assert refusal(world, again) is None
    assert world.folded().state.get("ns", "1") == {"server": world.servers[2].id}


@settings(deadline=None)
@given(
    claims=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_in_whatever_order_claims_arrive_all_agree_and_no_slot_has_two(claims, order) -> None:
    world = World(5)
    for by, slot in claims:
        world.write(
            world.servers[by], world.signed(world.servers[by].key, CLAIM_KIND, {"slot": slot})
        )
    one, other = world.folded(), world.fold()
    other.publish_charter()
    servers = list(world.servers)
    order.shuffle(servers)
    for server in servers:
        world.deliver(other, server)
    assert one.state.root() == other.state.root()
    held = slots_held(other.state, other.charter)
    assert len(set(held.values())) == len(held)
    assert set(held) <= {slot for _, slot in claims}
