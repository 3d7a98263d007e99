"""Proposals to change a parameter, and the votes on them.

    proposal/<record>    {base, closes_ms, new_value, old_value, opened_ms, parameter, proposer,
                         reason, roster, state, votes}; ``state`` is open or passed
    proposer/<server>    the newest proposals of a server: those open, and 32 that are over

Kinds: ``governance.propose``, ``governance.vote``, by a server of tier 1 on its own feed. Who may
vote is fixed where the proposal stands in the order: tier 1 as of its roster, whose number it
keeps. ``base`` is the proposal that had set the value which is to be changed: where another one has
set it since, this one is stale and can't pass, though the old value may have come back. It passes
with the vote by which more than half have approved, and sets the parameter there. Of each server
eight may be open; what is over and did not pass is forgotten behind 32 newer ones of its own, so
that nobody fills the state with proposals that expire in a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from services.authority.governance import parameters
from services.authority.governance.polls import (
    Tally,
    cast,
    count,
    keep_early,
    majority,
    open_poll,
    require_voter,
)
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import parse_record_id

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext, StateReader

VIEW: Final = "proposal"
PROPOSER_VIEW: Final = "proposer"
PROPOSE_KIND: Final = "governance.propose"
VOTE_KIND: Final = "governance.vote"
KINDS: Final = (PROPOSE_KIND, VOTE_KIND)

MAX_OPEN: Final = 8
MAX_OVER: Final = 32
MAX_LIFETIME_MS: Final = 90 * 86_400_000
MAX_REASON_CHARS: Final = 500

OPEN: Final = "open"
PASSED: Final = "passed"
REJECTED: Final = "rejected"
STALE: Final = "stale"
EXPIRED: Final = "expired"
VOID: Final = "void"


class _ProposalWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parameter: str
    old_value: Any
    new_value: Any
    expires_ms: int
    reason: str


class _VoteWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    proposal: str
    approve: bool


def tally_of(proposal: dict[str, Any]) -> Tally:
    """Return the count of a proposal."""
    return count(proposal["votes"], majority(len(proposal["votes"])))


def standing_of(state: StateReader, proposal: dict[str, Any], now_ms: int) -> str:
    """Return how a proposal stands at a time: open, passed, rejected, stale or expired."""
    if proposal["state"] == PASSED:
        return PASSED
    if parameters.set_by(state, proposal["parameter"]) != proposal["base"]:
        return STALE
    if tally_of(proposal).lost:
        return REJECTED
    return EXPIRED if now_ms > proposal["closes_ms"] else OPEN


def _propose(context: FoldContext, body: dict[str, Any]) -> None:
    wire = _proposal(body)
    require_voter(context)
    state, name = context.state, wire.parameter
    parameters.require_allowed(name, wire.new_value)
    current = parameters.value(state, name)
    if wire.old_value != current or type(wire.old_value) is not type(current):
        raise RejectedError(f"{name} is {current}", code="stale_value")
    if wire.new_value == current:
        raise RejectedError(f"{name} is {current} already", code="no_change")
    if not context.stamp_ms < wire.expires_ms <= context.stamp_ms + MAX_LIFETIME_MS:
        raise RejectedError(
            "a proposal expires within 90 days, and not in the past", code="bad_expiry"
        )
    _require_few_open(context)
    proposal = {
        "parameter": name,
        "old_value": wire.old_value,
        "new_value": wire.new_value,
        "reason": wire.reason,
        "proposer": context.author.server_id,
        "opened_ms": context.stamp_ms,
        "closes_ms": wire.expires_ms,
        "roster": context.roster.number,
        "base": parameters.set_by(state, name),
        "state": OPEN,
        "votes": open_poll(context, closes_ms=wire.expires_ms),
    }
    _decide(context, context.record.id, proposal)


def _proposal(body: dict[str, Any]) -> _ProposalWire:
    try:
        wire = msgspec.convert(body, _ProposalWire)
    except msgspec.ValidationError as error:
        raise InputError(f"{PROPOSE_KIND}: {error}") from error
    if len(wire.reason) > MAX_REASON_CHARS or not wire.reason.isprintable():
        raise InputError(f"a reason is one line of at most {MAX_REASON_CHARS} characters")
    return wire


def _require_few_open(context: FoldContext) -> None:
    state, proposer = context.state, context.author.server_id
    known = {one: state.get(VIEW, one) for one in state.get(PROPOSER_VIEW, proposer) or []}
    over = [
        one
        for one, held in known.items()
        if held is None or standing_of(state, held, context.stamp_ms) != OPEN
    ]
    if len(known) - len(over) >= MAX_OPEN:
        raise RejectedError(
            f"{proposer} has {MAX_OPEN} proposals open already",
            code="limit_exceeded",
            mend="wait until one of them is decided or has expired",
        )
    for one in over[:-MAX_OVER]:
        held = known.pop(one)
        if held is not None and held["state"] != PASSED:
            state.delete(VIEW, one)
    state.put(PROPOSER_VIEW, proposer, [*known, context.record.id])


def _vote(context: FoldContext, body: dict[str, Any]) -> None:
    try:
        wire = msgspec.convert(body, _VoteWire)
    except msgspec.ValidationError as error:
        raise InputError(f"{VOTE_KIND}: {error}") from error
    state, poll = context.state, parse_record_id(wire.proposal)
    proposal = state.get(VIEW, poll)
    if proposal is None:
        keep_early(context, poll, approve=wire.approve)
        return
    if (over := _over(state, proposal)) is not None:
        raise over
    votes = cast(context, proposal["votes"], approve=wire.approve, closes_ms=proposal["closes_ms"])
    _decide(context, poll, {**proposal, "votes": votes})


def _over(state: StateReader, proposal: dict[str, Any]) -> RejectedError | None:
    standing = standing_of(state, proposal, 0)
    if standing == STALE:
        name = proposal["parameter"]
        return RejectedError(
            f"{name} was changed since, to {parameters.value(state, name)}", code="stale_value"
        )
    if standing != OPEN:
        return RejectedError(f"this proposal is {standing}", code="voting_over")
    return None


def _decide(context: FoldContext, poll: str, proposal: dict[str, Any]) -> None:
    """Put a proposal, and the parameter if this is the vote by which it passes."""
    if tally_of(proposal).passed:
        proposal = {**proposal, "state": PASSED}
        changed = {"value": proposal["new_value"], "proposal": poll}
        context.state.put(parameters.VIEW, proposal["parameter"], changed)
    context.state.put(VIEW, poll, proposal)


APPLIERS: Appliers = {PROPOSE_KIND: _propose, VOTE_KIND: _vote}
