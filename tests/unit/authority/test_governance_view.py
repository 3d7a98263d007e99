"""What only a vote changes: who may propose and vote, what counts, and what has no effect."""

from __future__ import annotations

import pytest

from services.authority.governance import parameters
from services.authority.governance.view import (
    EXPIRED,
    MAX_OPEN,
    MAX_OVER,
    OPEN,
    PASSED,
    REJECTED,
    STALE,
    standing_of,
    tally_of,
)
from services.kernel.addr import default_ranges
from services.kernel.errors import InputError, WireError
from services.kernel.ids import parse_key
from services.kernel.records import record_from_value
from tests.fakes.world import HOUR_MS, START_MS, Server, World, key_of

ROTATION = parameters.ROTATION
LATER_MS = START_MS + HOUR_MS


def newest_first(world: World, server: Server) -> None:
    server.hlc = max(one.hlc for one in world.servers)


def propose(world: World, by: int, key=None, **changes) -> str:
    server = world.servers[by]
    newest_first(world, server)
    body = {
        "parameter": ROTATION,
        "old_value": 7,
        "new_value": 30,
        "expires_ms": LATER_MS,
        "reason": "the quarter's audit",
        **changes,
    }
    record = world.signed(key or server.key, "governance.propose", body)
    world.write(server, record)
    return record.id


def vote(world: World, by: int, proposal: str, approve: object = True, key=None, **more) -> str:
    server = world.servers[by]
    newest_first(world, server)
    body = {"proposal": proposal, "approve": approve, **more}
    record = world.signed(key or server.key, "governance.vote", body)
    world.write(server, record)
    return record.id


def refusal(world: World, record_id: str) -> str | None:
    return world.folded().items_of([record_id])[0].refusal


def rotation_days(world: World) -> parameters.Value:
    return parameters.value(world.folded().state, ROTATION)


def standing(world: World, proposal: str, now_ms: int = START_MS) -> str:
    state = world.folded().state
    return standing_of(state, state.get("proposal", proposal), now_ms)


def test_two_of_five_change_nothing_and_the_third_does() -> None:
    world = World(5)
    proposal = propose(world, 0)
    for voter in (1, 2):
        vote(world, voter, proposal)
    assert (rotation_days(world), standing(world, proposal)) == (7, OPEN)
    vote(world, 4, proposal)
    assert (rotation_days(world), standing(world, proposal)) == (30, PASSED)
    tally = tally_of(world.folded().state.get("proposal", proposal))
    assert (tally.electors, tally.needed, tally.approvals) == (5, 3, 3)


def test_half_is_not_more_than_half() -> None:
    world = World(4)
    proposal = propose(world, 0)
    vote(world, 0, proposal)
    vote(world, 1, proposal)
    assert rotation_days(world) == 7
    vote(world, 2, proposal)
    assert rotation_days(world) == 30


def test_a_proposal_is_no_vote_of_its_proposer() -> None:
    world = World(1)
    proposal = propose(world, 0)
    assert rotation_days(world) == 7
    assert refusal(world, vote(world, 0, proposal)) is None
    assert rotation_days(world) == 30


def test_so_many_denials_that_it_can_t_pass_any_more_end_it() -> None:
    world = World(4)
    proposal = propose(world, 0)
    vote(world, 0, proposal, approve=False)
    assert standing(world, proposal) == OPEN
    vote(world, 1, proposal, approve=False)
    assert standing(world, proposal) == REJECTED
    assert refusal(world, vote(world, 2, proposal)) == "voting_over"


@pytest.mark.parametrize("second", [True, False])
def test_gov_01_of_two_votes_of_a_server_the_first_counts(second) -> None:
    world = World(5)
    proposal = propose(world, 0)
    vote(world, 1, proposal)
    assert refusal(world, vote(world, 1, proposal, approve=second)) == "already_voted"
    tally = tally_of(world.folded().state.get("proposal", proposal))
    assert (tally.approvals, tally.denials) == (1, 0)


def test_gov_01_a_key_in_two_spellings_is_one_voter() -> None:
    """The voter is the key that signed; another spelling of it is no key at all."""
    world = World(3)
    proposal = propose(world, 0)
    vote(world, 1, proposal)
    value = world.servers[1].entries[-1].record.value()
    last = value["actor"][-1]
    other = chr(ord(last) + 1)  # the last digit has two bits that say nothing
    assert parse_key(value["actor"])
    with pytest.raises(InputError):
        parse_key(value["actor"][:-1] + other)
    with pytest.raises(WireError):
        record_from_value({**value, "actor": value["actor"][:-1] + other})
    with pytest.raises(WireError):
        record_from_value({**value, "actor": value["actor"] + "="})


def test_gov_01_a_vote_on_another_server_s_feed_does_not_count() -> None:
    world = World(3)
    proposal = propose(world, 0)
    carried = vote(world, 0, proposal, key=world.servers[1].key)
    assert refusal(world, carried) == "rejected_not_eligible"
    assert refusal(world, vote(world, 1, proposal)) is None


@pytest.mark.parametrize("key", ["root", "endpoint laptop", "stranger"])
def test_gov_02_who_is_no_server_neither_proposes_nor_votes(key) -> None:
    world = World(3)
    assert refusal(world, propose(world, 0, key=key_of(key))) == "rejected_not_eligible"
    proposal = propose(world, 0)
    assert refusal(world, vote(world, 1, proposal, key=key_of(key))) == "rejected_not_eligible"


def test_gov_02_a_server_that_joined_after_the_proposal_has_no_vote_on_it() -> None:
    world = World(2)
    proposal = propose(world, 0)
    new = Server("server 2")
    new.hlc = world.servers[0].hlc
    world.servers.append(new)
    world.write(world.servers[0], world.add_server(new, ("10.64.128.0/20",)))
    for server in world.servers:
        world.name_roster(server)
    assert refusal(world, vote(world, 2, proposal)) == "rejected_not_eligible"
    assert len(world.folded().state.get("proposal", proposal)["votes"]) == 2
    # It has one on what is proposed from now on.
    assert refusal(world, vote(world, 2, propose(world, 2, new_value=14))) is None


def test_gov_02_who_names_an_old_roster_is_no_majority_by_itself() -> None:
    world = World(1)
    alone = world.servers[0]
    for number in range(1, 3):
        server = Server(f"server {number}")
        slices = (str(default_ranges().slice_at(4 * number)),)
        world.write(alone, world.add_server(server, slices))
        world.servers.append(server)
        newest_first(world, server)
        world.name_roster(server)
    # Who was alone goes on naming the roster of that day.
    assert refusal(world, propose(world, 1, new_value=20)) is None
    own = propose(world, 0)
    vote(world, 0, own)
    assert refusal(world, own) == "rejected_stale"
    assert rotation_days(world) == 7
    world.name_roster(alone)
    later = propose(world, 0)
    assert refusal(world, later) is None
    vote(world, 0, later)
    assert rotation_days(world) == 7
    vote(world, 1, later)
    assert rotation_days(world) == 30


def test_gov_02_a_verdict_under_a_later_roster_ends_the_polls_of_an_older_one() -> None:
    world = World(1)
    alone, other = world.servers[0], Server("server 1")
    world.write(alone, world.add_server(other, (str(default_ranges().slice_at(4)),)))
    world.servers.append(other)
    newest_first(world, other)
    world.name_roster(other)
    world.change(alone, witnesses=[other.id])
    world.name_roster(other)
    seen = {"checks": 0, "uptime_permille": None, "platform": None, "release": None}
    words = {"server": alone.id, "tier": 1, "reasons": [], "evidence": seen}
    world.write(other, world.signed(other.key, "trust.verdict", words))
    assert refusal(world, propose(world, 0)) == "rejected_stale"


def test_gov_02_a_revoked_server_s_later_vote_does_not_count() -> None:
    world = World(3)
    proposal = propose(world, 0)
    gone = world.servers[2]
    counts = len(gone.entries)
    late = vote(world, 2, proposal)
    newest_first(world, world.servers[0])
    world.change(world.servers[0], removed=[world.removal(gone, counts)])
    assert refusal(world, late) == "revoked"
    vote(world, 0, proposal)
    assert rotation_days(world) == 7
    vote(world, 1, proposal)
    assert rotation_days(world) == 30


def test_gov_02_an_untrusted_server_is_not_in_tier_1() -> None:
    world = World(3)
    liar = world.servers[2]
    fold = world.folded()
    fold.state.put("trust", liar.id, {"state": "untrusted"})
    proposal = propose(world, 0)
    world.deliver(fold, world.servers[0])
    assert set(fold.state.get("proposal", proposal)["votes"]) == {
        one.id.removeprefix("server-") for one in world.servers[:2]
    }
    cast = vote(world, 2, proposal)
    mine = propose(world, 2, new_value=14)
    world.deliver(fold, liar)
    assert [one.refusal for one in fold.items_of([cast, mine])] == ["rejected_not_eligible"] * 2


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (ROTATION, 0),
        (ROTATION, 91),
        (ROTATION, -1),
        (ROTATION, "30"),
        (ROTATION, True),
        (ROTATION, None),
        (ROTATION, [30]),
        (parameters.SHARE_QUORUM, 0),
        (parameters.SHARE_QUORUM, 50),
        (parameters.SHARE_QUORUM, 101),
        (parameters.SHARE_QUORUM, "51"),
        (parameters.TIER1_UPTIME, 499),
        (parameters.TIER1_UPTIME, 1000),
        (parameters.PUBLIC_RATE, 0),
        (parameters.CALLER_RATE, 1 << 40),
        (parameters.ENROLLMENT, "closed"),
        (parameters.ENROLLMENT, 1),
        (parameters.ENROLLMENT_QUORUM, 0),
    ],
)
def test_gov_04_a_value_out_of_its_range_is_refused(parameter, value) -> None:
    world = World(1)
    old = parameters.PARAMETERS[parameter].default
    record = propose(world, 0, parameter=parameter, old_value=old, new_value=value)
    assert refusal(world, record) == "out_of_range"
    assert world.folded().state.get("proposal", record) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"parameter": "colour"}, "unknown_parameter"),
        ({"parameter": 7}, "bad_field"),
        ({"old_value": 8}, "stale_value"),
        ({"old_value": "7"}, "stale_value"),
        ({"new_value": 7}, "no_change"),
        ({"expires_ms": START_MS - 1}, "bad_expiry"),
        ({"expires_ms": START_MS + 91 * 86_400_000}, "bad_expiry"),
        ({"expires_ms": "soon"}, "bad_field"),
        ({"reason": "x" * 501}, "bad_field"),
        ({"reason": "two\nlines"}, "bad_field"),
        ({"quorum": 1}, "bad_field"),
    ],
)
def test_proposals_that_are_refused(changes, code) -> None:
    world = World(1)
    assert refusal(world, propose(world, 0, **changes)) == code


@pytest.mark.parametrize("body", [{"approve": 1}, {"approve": None}, {"x": 1}])
def test_votes_that_are_malformed(body) -> None:
    world = World(1)
    assert refusal(world, vote(world, 0, propose(world, 0), **body)) == "bad_field"
    assert refusal(world, vote(world, 0, "x")) == "bad_field"


def test_a_vote_after_the_proposal_expired_has_no_effect() -> None:
    world = World(3)
    proposal = propose(world, 0, expires_ms=START_MS + 60_000)
    vote(world, 0, proposal)
    world.servers[1].hlc += 120_000 << 16
    late = world.signed(
        world.servers[1].key, "governance.vote", {"proposal": proposal, "approve": True}
    )
    world.write(world.servers[1], late)
    assert refusal(world, late.id) == "voting_expired"
    assert standing(world, proposal, START_MS + 60_001) == EXPIRED
    assert rotation_days(world) == 7


def test_a_proposal_whose_old_value_was_changed_since_can_t_pass() -> None:
    """Though another vote brought the old value back."""
    world = World(1)
    slow, quick = propose(world, 0, new_value=60), propose(world, 0, new_value=30)
    vote(world, 0, quick)
    assert standing(world, slow) == STALE
    back = propose(world, 0, old_value=30, new_value=7)
    vote(world, 0, back)
    assert rotation_days(world) == 7
    assert standing(world, slow) == STALE
    assert refusal(world, vote(world, 0, slow)) == "stale_value"
    assert rotation_days(world) == 7


def test_gov_08_a_server_has_a_few_proposals_open_at_a_time() -> None:
    world = World(2)
    ids = [propose(world, 0, new_value=10 + number) for number in range(MAX_OPEN + 1)]
    assert [refusal(world, one) for one in ids] == [None] * MAX_OPEN + ["limit_exceeded"]
    assert refusal(world, propose(world, 1)) is None
    for voter in (0, 1):
        vote(world, voter, ids[0])
    # The others are stale by that, and count no more.
    assert refusal(world, propose(world, 0, old_value=10, new_value=11)) is None


def test_gov_08_proposals_that_expire_in_a_moment_fill_no_state() -> None:
    world = World(2)
    passed = propose(world, 0)
    for voter in (0, 1):
        vote(world, voter, passed)
    ids = []
    for _ in range(3 * MAX_OVER):
        newest_first(world, world.servers[0])
        stamp_ms = (world.servers[0].hlc >> 16) + 1
        ids.append(propose(world, 0, old_value=30, new_value=31, expires_ms=stamp_ms + 1))
        world.servers[0].hlc += 10 << 16
    fold = world.folded()
    assert {one.refusal for one in fold.items_of(ids)} == {None}
    held = {key for _, key, _ in fold.state.scan("proposal")}
    assert held == {passed, *ids[-MAX_OVER - 1 :]}
    late = vote(world, 1, ids[0])
    assert rotation_days(world) == 30
    assert refusal(world, late) is None


def test_a_vote_that_settles_before_its_proposal_counts_where_the_proposal_stands() -> None:
    """Witnesses may sign the voter's feed before the proposer's."""
    world = World(3)
    first, second, third = world.servers
    world.attest(first, len(first.entries), START_MS // 1000)
    proposal = propose(world, 0)
    for voter in (1, 2):
        vote(world, voter, proposal)
    assert rotation_days(world) == 30
    twice = vote(world, 2, proposal, approve=False)
    for server in (second, third):
        world.attest(server, len(server.entries), START_MS // 1000 + 1)
    fold = world.folded()
    assert parameters.value(fold.state, ROTATION) == 30
    assert fold.items_of([twice])[0].refusal == "already_voted"
    world.attest(first, len(first.entries), START_MS // 1000 + 2)
    assert rotation_days(world) == 30
    assert fold.state.get("early", proposal) is None


def test_votes_for_what_nobody_proposed_change_nothing() -> None:
    world = World(3)
    for voter in range(3):
        assert refusal(world, vote(world, voter, "0" * 32)) is None
    assert rotation_days(world) == 7
    assert list(world.folded().state.scan("proposal")) == []


def test_gov_05_a_vote_on_a_quorum_is_counted_by_the_rule_that_was_in_force() -> None:
    """More than half it is, whatever quorum is voted on, before and after."""
    world = World(4)
    quorum = parameters.ENROLLMENT_QUORUM
    proposal = propose(world, 0, parameter=quorum, old_value=51, new_value=1)
    vote(world, 0, proposal)
    vote(world, 1, proposal)
    assert parameters.value(world.folded().state, quorum) == 51
    vote(world, 2, proposal)
    assert parameters.value(world.folded().state, quorum) == 1
    raised = propose(world, 0, parameter=quorum, old_value=1, new_value=100)
    vote(world, 0, raised)
    assert parameters.value(world.folded().state, quorum) == 1
