"""Polls: who may vote is fixed where a poll stands in the order; of each the first vote counts.

    early/<poll>      {voter: [approve, stamp_ms]}
    early_by/<voter>  the polls that this voter's votes wait for, oldest first

A poll is named by the record that opened it, a voter by its server id without ``server-``. Feeds
settle one by one, so a vote may stand before its poll in the order though it was cast after it:
such a vote is kept, and counts where the poll opens, if it came in time and from an elector. Of a
voter so many are kept as nobody casts in that time; more push out the oldest.

Electors are those of the roster that the opener's feed had named; see ``require_newest_roster``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.authority.governance.electorate import is_tier1, tier1
from services.authority.trust.tiers import require_newest_roster
from services.kernel.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.views import FoldContext, StateWriter

VIEW: Final = "early"
VOTER_VIEW: Final = "early_by"
MAX_EARLY: Final = 64
PREFIX: Final = "server-"

Votes = dict[str, bool | None]
"""Every elector, and how it voted; None while it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The count of a poll."""

    electors: int
    needed: int
    approvals: int
    denials: int

    @property
    def passed(self) -> bool:
        """Whether enough approved."""
        return self.approvals >= self.needed

    @property
    def lost(self) -> bool:
        """Whether so many denied that enough can't approve any more."""
        return self.electors - self.denials < self.needed


def count(votes: Mapping[str, bool | None], needed: int) -> Tally:
    """Return the count of votes."""
    cast = list(votes.values())
    return Tally(
        electors=len(cast),
        needed=needed,
        approvals=cast.count(True),
        denials=cast.count(False),
    )


def majority(electors: int) -> int:
    """Return the least number that is more than half."""
    return electors // 2 + 1


def share(electors: int, percent: int) -> int:
    """Return the least number that is at least so many percent; at least one."""
    return max(1, -(-electors * percent // 100))


def require_voter(context: FoldContext) -> str:
    """Return the voter that a record speaks for: a server of tier 1, on its own feed.

    Raises:
        RejectedError: ``rejected_not_eligible``.
    """
    author = context.author
    if context.record.actor != author.key:
        raise RejectedError(
            "a server speaks for itself, on its own feed", code="rejected_not_eligible"
        )
    if not is_tier1(context.state, context.roster, author.server_id):
        raise RejectedError(f"{author.server_id} is not in tier 1", code="rejected_not_eligible")
    return author.server_id.removeprefix(PREFIX)


def open_poll(context: FoldContext, *, closes_ms: int) -> Votes:
    """Return the electors of a poll that the record opens, with the votes that came before it.

    Raises:
        RejectedError: ``rejected_stale``: a later roster was voted or judged under.
    """
    poll = context.record.id
    electors = sorted(tier1(context.state, context.roster))
    require_newest_roster(context)
    votes: Votes = {one.removeprefix(PREFIX): None for one in electors}
    for voter, (approve, stamp_ms) in (context.state.get(VIEW, poll) or {}).items():
        if voter in votes and stamp_ms <= closes_ms:
            votes[voter] = approve
        _forget_early(context.state, poll, voter)
    return votes


def cast(context: FoldContext, votes: Votes, *, approve: bool, closes_ms: int) -> Votes:
    """Return the votes with the record's vote among them.

    Raises:
        RejectedError: ``rejected_not_eligible``, ``already_voted`` or ``voting_expired``.
    """
    voter = require_voter(context)
    if voter not in votes:
        raise RejectedError(
            "who may vote was settled when this was opened", code="rejected_not_eligible"
        )
    if votes[voter] is not None:
        raise RejectedError("the first vote counts", code="already_voted")
    if context.stamp_ms > closes_ms:
        raise RejectedError("the time to vote is over", code="voting_expired")
    return {**votes, voter: approve}


def keep_early(context: FoldContext, poll: str, *, approve: bool) -> None:
    """Keep a vote until its poll opens.

    Raises:
        RejectedError: ``rejected_not_eligible`` or ``already_voted``.
    """
    voter, state = require_voter(context), context.state
    early = state.get(VIEW, poll) or {}
    if voter in early:
        raise RejectedError("the first vote counts", code="already_voted")
    waiting = state.get(VOTER_VIEW, voter) or []
    if len(waiting) >= MAX_EARLY:
        _forget_early(state, waiting[0], voter)
    state.put(VIEW, poll, {**early, voter: [approve, context.stamp_ms]})
    state.put(VOTER_VIEW, voter, [*waiting[-MAX_EARLY + 1 :], poll])


def _forget_early(state: StateWriter, poll: str, voter: str) -> None:
    early = {key: one for key, one in (state.get(VIEW, poll) or {}).items() if key != voter}
    _keep_if_any(state, VIEW, poll, early)
    waiting = [one for one in state.get(VOTER_VIEW, voter) or [] if one != poll]
    _keep_if_any(state, VOTER_VIEW, voter, waiting)


def _keep_if_any(
    state: StateWriter, view: str, key: str, value: dict[str, Any] | list[str]
) -> None:
    if value:
        state.put(view, key, value)
    else:
        state.delete(view, key)
