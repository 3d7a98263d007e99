"""Which secrets there are follows from records, the same everywhere; only tier 1 writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.serversecrets.messages import MAX_SECRETS, REMOVE_KIND, SET_KIND
from services.authority.serversecrets.view import names, row_of
from services.authority.trust.tiers import Tier, TrustRules
from services.kernel.ids import b64u_encode
from tests.fakes.thoroughness import examples
from tests.fakes.world import World, key_of

TIER2 = TrustRules(newcomers=Tier.CERTIFIED).value()


def said(world: World, by: int, kind: str, body: dict, key=None) -> str:
    server = world.servers[by]
    server.hlc = max(one.hlc for one in world.servers)
    record = world.signed(key or server.key, kind, body)
    world.write(server, record)
    return record.id


def put(world: World, by: int, name: str = "acme", version: int = 1, fill: int = 0, **kw) -> str:
    body = {"name": name, "version": version, "commitment": b64u_encode(bytes([fill]) * 32)}
    return said(world, by, SET_KIND, body, **kw)


def refusal(world: World, record_id: str) -> str | None:
    return world.folded().items_of([record_id])[0].refusal


def test_a_secret_is_set_set_again_and_removed() -> None:
    world = World(2)
    put(world, 0)
    newer = put(world, 1, version=2, fill=7)
    state = world.folded().state
    row = row_of(state, "acme")
    assert (row["version"], row["by"], row["record"]) == (2, world.servers[1].id, newer)
    assert names(state) == ("acme",)
    assert refusal(world, said(world, 0, REMOVE_KIND, {"name": "acme", "version": 2})) is None
    after = world.folded().state
    assert (names(after), row_of(after, "acme")) == ((), None)
    assert refusal(world, put(world, 0)) is None


def test_tier_2_neither_sets_nor_removes() -> None:
    world = World(2, trust=TIER2)
    assert refusal(world, put(world, 1)) == "rejected_not_eligible"
    world = World(2)
    put(world, 0)
    for key in ("root", "server 0", "endpoint laptop"):
        assert refusal(world, put(world, 1, version=2, key=key_of(key))) == "rejected_unauthorised"


@pytest.mark.parametrize("version", [1, 3])
def test_a_version_that_does_not_follow_has_no_effect(version: int) -> None:
    world = World(2)
    put(world, 0)
    assert refusal(world, put(world, 1, version=version, fill=9)) == "rejected_stale"
    stale = said(world, 1, REMOVE_KIND, {"name": "acme", "version": version + 1})
    assert refusal(world, stale) == "rejected_stale"
    assert row_of(world.folded().state, "acme")["version"] == 1


def test_there_is_room_for_so_many_and_no_more() -> None:
    world = World(1)
    for number in range(MAX_SECRETS):
        put(world, 0, name=f"s{number}")
    assert refusal(world, put(world, 0, name="more")) == "too_many"
    assert refusal(world, put(world, 0, name="s0", version=2)) is None
    said(world, 0, REMOVE_KIND, {"name": "s1", "version": 1})
    assert refusal(world, put(world, 0, name="more")) is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "acme", "version": 1, "commitment": "AA"},
        {"name": "a/b", "version": 1, "commitment": b64u_encode(bytes(32))},
        {"name": "acme", "version": 0, "commitment": b64u_encode(bytes(32))},
        {"name": "acme", "version": 1, "commitment": b64u_encode(bytes(32)), "value": "x"},
    ],
)
def test_a_malformed_record_has_no_effect(body: dict) -> None:
    world = World(1)
    assert refusal(world, said(world, 0, SET_KIND, body)) is not None
    assert names(world.folded().state) == ()


steps = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from(["a", "b"]), st.integers(1, 3)),
    max_size=10,
)


@examples(40)
@given(steps=steps, order=st.randoms(use_true_random=False))
def test_in_whatever_order_records_arrive_all_see_the_same(steps, order) -> None:
    world = World(3)
    for by, is_set, name, version in steps:
        server = world.servers[by]
        body = {"name": name, "version": version}
        if is_set:
            body["commitment"] = b64u_encode(bytes([by]) * 32)
        world.write(server, world.signed(server.key, SET_KIND if is_set else REMOVE_KIND, body))
    one, other = world.folded(), world.fold()
    other.publish_charter()
    servers = list(world.servers)
    order.shuffle(servers)
    for server in servers:
        world.deliver(other, server)
    assert world.updated(other).state.root() == one.state.root()
    for name in names(one.state):
        assert row_of(one.state, name)["name"] == name
