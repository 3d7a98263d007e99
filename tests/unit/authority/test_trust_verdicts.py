"""Who is tier 1 follows from the witnesses' verdicts, whatever order they arrive in."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.governance.electorate import tier1
from services.authority.trust.tiers import Right, Tier, may, tier_of
from tests.fakes.thoroughness import examples
from tests.fakes.world import START_MS, World, shuffled

STRICT = {"attestation": [], "checks": 100, "newcomers": 2}
SEEN = {"checks": 128, "uptime_permille": 1000, "platform": None, "release": None}
QUICK = examples(int(os.environ.get("SEIPD_MODEL_EXAMPLES", "150")))


def mesh(server_count: int = 3, witness_count: int = 3, trust=STRICT) -> World:
    world = World(server_count, **({"trust": trust} if trust else {}))
    appoint(world, range(witness_count))
    return world


def appoint(world: World, which) -> None:
    world.change(world.servers[0], witnesses=[world.servers[one].id for one in which])
    for server in world.servers:
        server.hlc = max(one.hlc for one in world.servers)
        world.name_roster(server)


def say(world: World, by: int, about: int, tier: int):
    server = world.servers[by]
    server.hlc = max(one.hlc for one in world.servers)
    body = {
        "server": world.servers[about].id,
        "tier": tier,
        "reasons": [],
        "evidence": SEEN,
    }
    record = world.signed(server.key, "trust.verdict", body)
    world.write(server, record)
    return record


def tiers(world: World) -> list[int]:
    fold = world.folded()
    roster = fold.charter.at(fold.charter.number)
    return [tier_of(fold.state, roster, one.id).value for one in world.servers]


def refusal(world: World, record) -> str | None:
    return world.folded().items_of([record.id])[0].refusal


def test_a_server_is_tier_1_when_more_than_half_of_the_witnesses_say_so() -> None:
    world = mesh()
    assert tiers(world) == [2, 2, 2]
    say(world, 0, 2, 1)
    assert tiers(world) == [2, 2, 2]
    say(world, 1, 2, 1)
    assert tiers(world) == [2, 2, 1]
    fold = world.folded()
    assert tier1(fold.state, fold.charter.at(fold.charter.number)) == {world.servers[2].id}


def test_gov_01_one_witness_of_three_neither_lifts_itself_nor_lowers_the_others() -> None:
    world = mesh()
    for about in range(3):
        say(world, 0, about, 1)
        say(world, 1, about, 1)
    assert tiers(world) == [1, 1, 1]
    for about in (0, 1):
        say(world, 2, about, 2)
    assert tiers(world) == [1, 1, 1]
    say(world, 0, 2, 2)
    say(world, 1, 2, 2)
    say(world, 2, 2, 1)
    assert tiers(world) == [1, 1, 2]


def test_the_only_witness_of_a_small_mesh_vouches_for_all_and_for_itself() -> None:
    world = mesh(2, 1)
    say(world, 0, 0, 1)
    say(world, 0, 1, 1)
    assert tiers(world) == [1, 1]


def test_new_witnesses_that_have_not_spoken_move_nothing() -> None:
    world = mesh(5, 1)
    for about in range(5):
        say(world, 0, about, 1)
    appoint(world, range(5))
    assert tiers(world) == [1, 1, 1, 1, 1]
    say(world, 3, 4, 2)
    say(world, 2, 4, 2)
    assert tiers(world)[4] == 1
    say(world, 1, 4, 2)
    assert tiers(world)[4] == 2


def test_who_is_a_witness_no_more_does_not_count() -> None:
    world = mesh(4, 3)
    say(world, 0, 3, 1)
    appoint(world, (1, 2, 3))
    say(world, 1, 3, 1)
    assert tiers(world)[3] == 2
    assert refusal(world, say(world, 0, 3, 1)) == "rejected_unauthorised"
    say(world, 2, 3, 1)
    assert tiers(world)[3] == 1


def test_witnesses_of_an_old_roster_can_t_go_on_by_not_naming_the_new_one() -> None:
    world = mesh(4, 1)
    say(world, 0, 3, 1)
    world.change(world.servers[0], witnesses=[world.servers[1].id])
    # Server 0 did write the change, and does not name it.
    world.servers[1].hlc = world.servers[0].hlc
    world.name_roster(world.servers[1])
    say(world, 1, 3, 2)
    assert tiers(world)[3] == 2
    assert refusal(world, say(world, 0, 3, 2)) == "rejected_stale"
    # Nor about others, of whom nobody has said anything under the new one.
    assert refusal(world, say(world, 0, 2, 2)) == "rejected_stale"


def test_a_genesis_that_says_nothing_has_new_servers_begin_in_tier_1() -> None:
    world = mesh(trust=None)
    assert tiers(world) == [1, 1, 1]
    say(world, 0, 2, 2)
    assert tiers(world) == [1, 1, 1]
    say(world, 1, 2, 2)
    assert tiers(world) == [1, 1, 2]


def test_revocation_cuts_off_at_once_and_for_good() -> None:
    world = mesh(4, 3)
    for by in range(3):
        say(world, by, 3, 1)
    assert tiers(world)[3] == 1
    world.change(
        world.servers[0],
        removed=[world.removal(world.servers[3])],
        witnesses=[one.id for one in world.servers[:3]],
    )
    for one in world.servers[:3]:
        one.hlc = max(server.hlc for server in world.servers)
        world.name_roster(one)
    assert tiers(world)[3] == 0
    assert refusal(world, say(world, 0, 3, 2)) == "rejected_scope"
    fold = world.folded()
    gone, roster = world.servers[3].id, fold.charter.at(fold.charter.number)
    assert [one for one in Right if may(fold.state, roster, gone, one)] == [Right.READ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tier": 3}, "bad_field"),
        ({"tier": 0}, "bad_field"),
        ({"reasons": ["a b"]}, "bad_field"),
        ({"reasons": ["x"] * 9}, "bad_field"),
        ({"evidence": {}}, "bad_field"),
        ({"evidence": {**SEEN, "uptime_permille": 1001}}, "bad_field"),
        ({"extra": 1}, "bad_field"),
        ({"server": "server-0000000000000000"}, "rejected_scope"),
    ],
)
def test_a_verdict_of_another_form_has_no_effect(changes, code) -> None:
    world = mesh()
    said = {
        "server": world.servers[1].id,
        "tier": 1,
        "reasons": [],
        "evidence": SEEN,
        **changes,
    }
    record = world.signed(world.servers[0].key, "trust.verdict", said)
    world.write(world.servers[0], record)
    assert refusal(world, record) == code


def test_a_verdict_is_by_a_witness_on_its_own_feed_and_says_something_new() -> None:
    world = mesh(4, 3)
    assert refusal(world, say(world, 3, 0, 1)) == "rejected_unauthorised"
    body = say(world, 1, 0, 1).body
    assert refusal(world, say(world, 1, 0, 1)) == "no_change"
    carried = world.signed(world.servers[2].key, "trust.verdict", body)
    world.write(world.servers[0], carried)
    assert refusal(world, carried) == "rejected_unauthorised"


STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 4), st.integers(1, 2)),
    min_size=4,
    max_size=40,
)
APPOINTED = ((0,), (0, 1, 2), (2, 3, 4), (0, 1, 2, 3, 4))


def play(world: World, steps) -> None:
    for action, who, about, tier in steps:
        server = world.servers[who]
        server.hlc += (1 + action) << 16
        if action < 7:
            body = {
                "server": world.servers[about].id,
                "tier": tier,
                "reasons": [],
                "evidence": SEEN,
            }
            world.write(server, world.signed(server.key, "trust.verdict", body))
        elif action == 7:
            world.change(server, witnesses=[world.servers[one].id for one in APPOINTED[about % 4]])
        elif action == 8:
            world.name_roster(server)
        else:
            size = max(1, len(server.entries) - about)
            world.attest(server, size, START_MS // 1000 + tier * 40 + who)


def by_hand(fold, world: World) -> list[int]:
    """Count in the order of the fold, with nothing but a table of the newest words."""
    said: dict[str, dict[str, int]] = {one.id: {} for one in world.servers}
    under = 0
    found = dict.fromkeys(said, 2)
    for item in fold.settled_until(1 << 62):
        if item.record.kind != "trust.verdict":
            continue
        about, tier = item.record.body["server"], item.record.body["tier"]
        witnesses = fold.charter.witnesses_at(item.roster_number)
        roster = fold.charter.at(item.roster_number)
        known = roster.server(about) is not None and roster.server(item.author) is not None
        if item.author not in witnesses or not known or item.roster_number < under:
            continue
        words = {name: one for name, one in said[about].items() if name in witnesses}
        if words.get(item.author) == tier:
            continue
        said[about], under = {**words, item.author: tier}, item.roster_number
        for one in (1, 2):
            if list(said[about].values()).count(one) > len(witnesses) / 2:
                found[about] = one
    return [found[one.id] for one in world.servers]


@QUICK
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_tiers_are_one_whatever_order_verdicts_arrive_in(steps, seed) -> None:
    world = mesh(5, 3)
    play(world, steps)
    fold, whole = shuffled(world, seed), world.folded()
    assert fold.state.root() == whole.state.root()
    assert list(fold.state.scan("tier")) == list(whole.state.scan("tier"))
    roster = whole.charter.at(whole.charter.number)
    counted = [tier_of(whole.state, roster, one.id).value for one in world.servers]
    assert counted == by_hand(whole, world)


def test_tiers_have_names_for_people() -> None:
    assert [Tier(one).label for one in (0, 1, 2)] == ["untrusted", "tier 1", "tier 2"]
