"""Ballots on new servers: what counts, how many tries, and what nobody can change afterwards."""

from __future__ import annotations

import pytest

from services.authority.ballots.view import (
    APPROVED,
    DENIED,
    EXPIRED,
    OPEN,
    REFUSED,
    WINDOW_MS,
    standing_of,
    tally_of,
)
from services.authority.governance import parameters
from services.kernel.ids import b64u_encode, server_id_of
from tests.fakes.world import START_MS, World, curve_key, key_of

NEW = key_of("newcomer").public_key
NEW_ID = server_id_of(NEW)


def world_of(servers: int, percent: int = 51, *, uses: int = 1) -> tuple[World, str]:
    """Return a world and an invitation of its first server for a server."""
    world = World(servers)
    if percent != 51:
        change(world, percent)
    invite_id, _ = world.invite(world.servers[0], "s", role="server", customer=None, uses=uses)
    return world, invite_id


def change(world: World, percent: int, *, before: int = 51) -> None:
    body = {
        "parameter": parameters.ENROLLMENT_QUORUM,
        "old_value": before,
        "new_value": percent,
        "expires_ms": START_MS + 3_000_000,
        "reason": "",
    }
    proposal = write(world, 0, "governance.propose", body)
    for voter in range(len(world.servers) // 2 + 1):
        write(world, voter, "governance.vote", {"proposal": proposal, "approve": True})


def write(world: World, by: int, kind: str, body: dict, *, later_ms: int = 1, key=None) -> str:
    server = world.servers[by]
    server.hlc = max(one.hlc for one in world.servers)
    record = world.signed(key or server.key, kind, body)
    world.write(server, record, later_ms=later_ms)
    return record.id


def open_ballot(world: World, invitation: str, *, by: int = 0, later_ms: int = 1, **changes) -> str:
    body = {
        "ask": f"{world.serial:032x}",
        "invite": invitation,
        "key": b64u_encode(NEW),
        "wireguard_key": curve_key("newcomer"),
        "tls_key_hash": b64u_encode(bytes(32)),
        "region": "eu-central",
        **changes,
    }
    return write(world, by, "enroll.ballot", body, later_ms=later_ms)


def vote(world: World, by: int, ballot: str, approve: object = True, **options) -> str:
    body = {"server": NEW_ID, "ballot": ballot, "approve": approve}
    return write(world, by, "enroll.vote", body, **options)


def refusal(world: World, record_id: str) -> str | None:
    return world.folded().items_of([record_id])[0].refusal


def held(world: World, server_id: str = NEW_ID) -> dict:
    return world.folded().state.get("ballot", server_id)


def standing(world: World, now_ms: int | None = None) -> str:
    now = max(one.hlc for one in world.servers) >> 16 if now_ms is None else now_ms
    return standing_of(held(world), now)


@pytest.mark.parametrize(
    ("servers", "percent", "needed"), [(5, 51, 3), (5, 100, 5), (4, 51, 3), (4, 50, 2), (3, 1, 1)]
)
def test_the_configured_share_of_tier_1_approves(servers, percent, needed) -> None:
    world, invite = world_of(servers, percent)
    ballot = open_ballot(world, invite)
    for voter in range(needed - 1):
        vote(world, voter, ballot)
    assert standing(world) == OPEN
    vote(world, needed - 1, ballot)
    assert standing(world) == APPROVED
    assert tally_of(held(world)).needed == needed


def test_gov_05_a_quorum_lowered_meanwhile_lets_nobody_in() -> None:
    world, invite = world_of(5, 80)
    ballot = open_ballot(world, invite)
    vote(world, 0, ballot)
    change(world, 1, before=80)
    vote(world, 1, ballot)
    assert (standing(world), held(world)["needed"]) == (OPEN, 4)


def test_gov_01_the_first_vote_counts() -> None:
    world, invite = world_of(3)
    ballot = open_ballot(world, invite)
    vote(world, 1, ballot, approve=False)
    assert refusal(world, vote(world, 1, ballot)) == "already_voted"
    assert tally_of(held(world)).denials == 1


def test_gov_02_who_is_no_server_has_no_vote() -> None:
    world, invite = world_of(3)
    ballot = open_ballot(world, invite)
    for key in (key_of("newcomer"), key_of("root"), world.servers[1].key):
        assert refusal(world, vote(world, 0, ballot, key=key)) == "rejected_not_eligible"


def test_a_vote_after_a_minute_does_not_count() -> None:
    world, invite = world_of(3)
    ballot = open_ballot(world, invite)
    vote(world, 0, ballot, later_ms=WINDOW_MS)
    late = vote(world, 1, ballot)
    assert refusal(world, late) == "voting_expired"
    assert standing(world) == EXPIRED


def test_after_three_tries_it_is_refused_for_good() -> None:
    world, invite = world_of(2, uses=5)
    for number in range(1, 4):
        ballot = open_ballot(world, invite, later_ms=WINDOW_MS + 1_000)
        assert (standing(world), held(world)["try"]) == (OPEN, number)
        assert refusal(world, open_ballot(world, invite)) == "ballot_open"
        assert held(world)["poll"] == ballot
    assert standing(world, START_MS * 2) == REFUSED
    again = open_ballot(world, invite, later_ms=WINDOW_MS + 1_000)
    assert refusal(world, again) == "enrollment_refused"
    other, _ = world.invite(world.servers[1], "t", role="server", customer=None)
    elsewhere = open_ballot(world, other, by=1)
    assert refusal(world, elsewhere) == "enrollment_refused"
    assert refusal(world, vote(world, 0, held(world)["past"][0])) == "voting_over"


def test_an_invitation_has_no_more_tries_under_other_keys() -> None:
    world, invite = world_of(2)
    for number in range(4):
        last = open_ballot(world, invite, key=b64u_encode(key_of(f"new {number}").public_key))
    assert refusal(world, last) == "enrollment_refused"


def test_where_nobody_is_in_tier_1_there_is_no_ballot_and_no_try_is_used_up() -> None:
    world = World(2, trust={"attestation": [], "checks": 100, "newcomers": 2})
    invite, _ = world.invite(world.servers[0], "s", role="server", customer=None)
    for _ in range(4):
        assert refusal(world, open_ballot(world, invite)) == "no_electors"
    assert world.folded().state.get("tried", invite) is None


def test_so_many_denials_end_a_try() -> None:
    world, invite = world_of(3)
    ballot = open_ballot(world, invite)
    for voter in (0, 1):
        vote(world, voter, ballot, approve=False)
    assert standing(world) == DENIED
    assert refusal(world, vote(world, 2, ballot)) == "voting_over"
    assert refusal(world, open_ballot(world, invite)) is None
    assert held(world)["try"] == 2


def test_votes_that_settle_before_the_ballot_count() -> None:
    world, invite = world_of(3)
    first, second, third = world.servers
    world.attest(first, len(first.entries), START_MS // 1000)
    ballot = open_ballot(world, invite)
    for voter in (1, 2):
        vote(world, voter, ballot)
    for server in (second, third):
        world.attest(server, len(server.entries), START_MS // 1000 + 1)
    assert standing(world) == APPROVED
    world.attest(first, len(first.entries), START_MS // 1000 + 2)
    assert standing(world) == APPROVED


def test_an_early_vote_counts_in_a_second_try_though_the_first_was_lost() -> None:
    world, invite = world_of(3)
    _, second, third = world.servers
    lost = open_ballot(world, invite)
    for voter in (1, 2):
        vote(world, voter, lost, approve=False)
    for server in world.servers:
        world.attest(server, len(server.entries), START_MS // 1000)
    ballot = open_ballot(world, invite)
    for voter in (1, 2):
        vote(world, voter, ballot)
    for server in (second, third):
        world.attest(server, len(server.entries), START_MS // 1000 + 1)
    assert standing(world) == APPROVED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"invite": "0" * 32}, "token_invalid"),
        ({"key": "x"}, "bad_key"),
        ({"wireguard_key": "x"}, "bad_key"),
        ({"region": "Not A Label"}, "bad_name"),
        ({"ask": "x"}, "bad_field"),
        ({"tier": 1}, "bad_field"),
        ({"region": 1}, "bad_field"),
    ],
)
def test_ballots_that_are_refused(changes, code) -> None:
    world, invite = world_of(1)
    assert refusal(world, open_ballot(world, invite, **changes)) == code


def test_only_the_server_that_invited_asks_for_a_ballot_and_of_no_server_there_is_one() -> None:
    world, invite = world_of(2)
    assert refusal(world, open_ballot(world, invite, by=1)) == "token_invalid"
    known = b64u_encode(world.servers[1].key.public_key)
    assert refusal(world, open_ballot(world, invite, key=known)) == "already_approved"
    endpoint, _ = world.invite(world.servers[0], "e")
    assert refusal(world, open_ballot(world, endpoint)) == "token_invalid"
