"""Whose votes count: not those of tier 2; of a server that tells two stories neither of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.authority.governance import parameters
from services.authority.governance.polls import MAX_EARLY
from services.authority.governance.view import tally_of
from tests.fakes.world import START_MS, World
from tests.unit.authority.test_governance_view import propose, refusal, vote
from tests.unit.authority.test_trust_verdicts import mesh, say
from tests.unit.base_ledger_fold.test_ledger_forks import Scene

if TYPE_CHECKING:
    from pathlib import Path

PROPOSAL = {
    "parameter": parameters.ROTATION,
    "old_value": 7,
    "new_value": 30,
    "expires_ms": START_MS + 3_600_000,
    "reason": "",
}


def two_of_three_in_tier_1() -> World:
    world = mesh(3, 1)
    for about in (0, 1):
        say(world, 0, about, 1)
    return world


def test_gov_02_a_server_of_tier_2_neither_proposes_nor_votes_and_is_no_elector() -> None:
    world = two_of_three_in_tier_1()
    assert refusal(world, propose(world, 2)) == "rejected_not_eligible"
    proposal = propose(world, 0)
    assert refusal(world, vote(world, 2, proposal)) == "rejected_not_eligible"
    tally = tally_of(world.folded().state.get("proposal", proposal))
    assert (tally.electors, tally.needed, tally.approvals) == (2, 2, 0)


def test_gov_02_a_server_that_rises_to_tier_1_has_no_vote_on_what_was_proposed_before() -> None:
    world = two_of_three_in_tier_1()
    proposal = propose(world, 0)
    say(world, 0, 2, 1)
    assert refusal(world, vote(world, 2, proposal)) == "rejected_not_eligible"
    assert refusal(world, vote(world, 2, propose(world, 1, new_value=14))) is None


async def test_gov_01_who_votes_both_ways_in_two_stories_is_proved_a_liar_and_counts_for_nothing(
    tmp_path: Path,
) -> None:
    async with Scene(tmp_path) as scene:
        first, second = scene.ledgers
        world, proposer = scene.world, scene.honest[0]
        proposal = world.signed(proposer.key, "governance.propose", PROPOSAL)
        await first.submit([proposal])
        await scene.share(first, second)
        for story, ledger, approve in zip(scene.stories, scene.ledgers, (True, False), strict=True):
            held = len(scene.liar.entries)
            scene.liar.hlc = (START_MS + 61_000) << 16
            body = {"proposal": proposal.id, "approve": approve}
            world.write(scene.liar, world.signed(scene.liar.key, "governance.vote", body))
            story.tell(scene.liar.entries)
            del scene.liar.entries[held:]
            await story.hand_to(ledger)
        seen = [tally_of(one.state.get("proposal", proposal.id)) for one in scene.ledgers]
        assert [(one.approvals, one.denials) for one in seen] == [(1, 0), (0, 1)]

        assert await first.contradict(scene.liar.id, 1, scene.stories[1].log.checkpoint)
        await scene.agree()
        for ledger in scene.ledgers:
            tally = tally_of(ledger.state.get("proposal", proposal.id))
            assert (tally.approvals, tally.denials) == (0, 0)
            assert ledger.state.get("trust", scene.liar.id)["state"] == "untrusted"
        assert first.state.root() == second.state.root()


@pytest.mark.slow
def test_gov_08_of_votes_on_what_nobody_proposed_a_few_are_kept_for_each_server() -> None:
    world = World(2)
    polls = [f"{number:032x}" for number in range(MAX_EARLY + 5)]
    for poll in polls:
        assert refusal(world, vote(world, 1, poll)) is None
    state = world.folded().state
    assert sorted(key for _, key, _ in state.scan("early")) == polls[5:]
    assert state.get("early_by", world.servers[1].id.removeprefix("server-")) == polls[5:]


def test_gov_08_a_vote_that_came_early_is_kept_no_longer_than_until_its_poll_opens() -> None:
    world = World(3)
    first, second, third = world.servers
    world.attest(first, len(first.entries), START_MS // 1000)
    proposal = propose(world, 0)
    for voter in (1, 2):
        vote(world, voter, proposal)
    for server in (second, third):
        world.attest(server, len(server.entries), START_MS // 1000 + 1)
    world.attest(first, len(first.entries), START_MS // 1000 + 2)
    state = world.folded().state
    assert tally_of(state.get("proposal", proposal)).approvals == 2
    assert list(state.scan("early")) + list(state.scan("early_by")) == []
