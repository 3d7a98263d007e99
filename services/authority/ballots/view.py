"""Ballots: whether tier 1 lets a new server in.

    ballot/<server id>   {ask, by, closes_ms, invite, key, needed, opened_ms, past, poll, region,
                         state, tls_key_hash, try, votes, wireguard_key}
    tried/<invitation>   how many ballots it has opened

Kinds: ``enroll.ballot``, by the server that issued the invitation; ``enroll.vote``, by a server of
tier 1; both on its own feed. Electors and how many of them are needed are fixed where the ballot
stands in the order, votes count until 60 s after its stamp. A server has three tries, and so has an
invitation for each server that it still may let in; after that it is refused for good. ``ask`` is
the record by which the newcomer asked, ``poll`` the record that opened the ballot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from services.authority.governance.parameters import ENROLLMENT_QUORUM, number
from services.authority.governance.polls import Tally, cast, count, keep_early, open_poll, share
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import (
    ServerId,
    parse_key,
    parse_label,
    parse_record_id,
    parse_server_id,
    parse_wireguard_key,
    server_id_of,
)

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext

VIEW: Final = "ballot"
TRIED_VIEW: Final = "tried"
BALLOT_KIND: Final = "enroll.ballot"
VOTE_KIND: Final = "enroll.vote"
WINDOW_MS: Final = 60_000
MAX_TRIES: Final = 3

OPEN: Final = "open"
APPROVED: Final = "approved"
DENIED: Final = "denied"
EXPIRED: Final = "expired"
REFUSED: Final = "refused"


class _BallotWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ask: str
    invite: str
    key: str
    wireguard_key: str
    tls_key_hash: str
    region: str


class _VoteWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: str
    ballot: str
    approve: bool


def tally_of(ballot: dict[str, Any]) -> Tally:
    """Return the count of a ballot."""
    return count(ballot["votes"], ballot["needed"])


def standing_of(ballot: dict[str, Any], now_ms: int) -> str:
    """Return how a ballot stands: open, approved, denied, expired, or refused for good."""
    if ballot["state"] == APPROVED:
        return APPROVED
    lost = tally_of(ballot).lost
    if not lost and now_ms <= ballot["closes_ms"]:
        return OPEN
    if ballot["try"] >= MAX_TRIES:
        return REFUSED
    return DENIED if lost else EXPIRED


def _open(context: FoldContext, body: dict[str, Any]) -> None:
    wire = _ballot(body)
    state, server_id = context.state, server_id_of(parse_key(wire.key))
    if context.record.actor != context.author.key:
        raise RejectedError("a server opens ballots on its own feed", code="rejected_scope")
    if context.roster.server(server_id) is not None:
        raise RejectedError(f"{server_id} is a server already", code="already_approved")
    _use_a_try(context, wire.invite)
    before = state.get(VIEW, server_id)
    if before is not None:
        _require_over(before, context.stamp_ms)
    closes_ms = context.stamp_ms + WINDOW_MS
    votes = open_poll(context, closes_ms=closes_ms)
    if not votes:
        raise RejectedError(
            "no server is in tier 1 now, and so there is nobody to vote",
            code="no_electors",
            mend="seipd trust peer says what each lacks",
        )
    ballot = {
        "ask": wire.ask,
        "by": context.author.server_id,
        "closes_ms": closes_ms,
        "invite": wire.invite,
        "key": wire.key,
        "needed": share(len(votes), number(state, ENROLLMENT_QUORUM)),
        "opened_ms": context.stamp_ms,
        "past": [] if before is None else [*before["past"], before["poll"]],
        "poll": context.record.id,
        "region": wire.region,
        "state": OPEN,
        "tls_key_hash": wire.tls_key_hash,
        "try": 1 if before is None else before["try"] + 1,
        "votes": votes,
        "wireguard_key": wire.wireguard_key,
    }
    _decide(context, server_id, ballot)


def _ballot(body: dict[str, Any]) -> _BallotWire:
    try:
        wire = msgspec.convert(body, _BallotWire)
    except msgspec.ValidationError as error:
        raise InputError(f"{BALLOT_KIND}: {error}") from error
    for text in (wire.ask, wire.invite):
        parse_record_id(text)
    parse_wireguard_key(wire.wireguard_key)
    parse_key(wire.tls_key_hash)
    parse_label(wire.region)
    return wire


def _use_a_try(context: FoldContext, invite_id: str) -> None:
    state = context.state
    invite = state.get("invite", invite_id)
    if (
        invite is None
        or invite["role"] != "server"
        or invite["server"] != context.author.server_id
        or invite["left"] < 1
        or context.stamp_ms > invite["expires_ms"]
    ):
        raise RejectedError("no invitation of this server's lets it in", code="token_invalid")
    tried = state.get(TRIED_VIEW, invite_id) or 0
    if tried >= MAX_TRIES * invite["left"]:
        raise refused()
    state.put(TRIED_VIEW, invite_id, tried + 1)


def _require_over(before: dict[str, Any], stamp_ms: int) -> None:
    standing = standing_of(before, stamp_ms)
    if standing == OPEN:
        raise RejectedError("the ballot on this server is open", code="ballot_open")
    if standing == APPROVED:
        raise RejectedError("this server was approved", code="already_approved")
    if standing == REFUSED:
        raise refused()


def refused() -> RejectedError:
    """Return what a newcomer is told after its last try."""
    return RejectedError(
        "the servers of this mesh did not approve it, three times: it is refused for good",
        code="enrollment_refused",
        mend="ask the mesh's operators; a new identity needs a new invitation",
    )


def _vote(context: FoldContext, body: dict[str, Any]) -> None:
    try:
        wire = msgspec.convert(body, _VoteWire)
    except msgspec.ValidationError as error:
        raise InputError(f"{VOTE_KIND}: {error}") from error
    server_id, poll = parse_server_id(wire.server), parse_record_id(wire.ballot)
    ballot = context.state.get(VIEW, server_id)
    is_past = ballot is not None and poll in ballot["past"]
    if ballot is None or (poll != ballot["poll"] and not is_past):
        keep_early(context, poll, approve=wire.approve)
        return
    if is_past or ballot["state"] == APPROVED or tally_of(ballot).lost:
        raise RejectedError("this ballot is over", code="voting_over")
    votes = cast(context, ballot["votes"], approve=wire.approve, closes_ms=ballot["closes_ms"])
    _decide(context, server_id, {**ballot, "votes": votes})


def _decide(context: FoldContext, server_id: ServerId, ballot: dict[str, Any]) -> None:
    if tally_of(ballot).passed:
        ballot = {**ballot, "state": APPROVED}
    context.state.put(VIEW, server_id, ballot)


APPLIERS: Appliers = {BALLOT_KIND: _open, VOTE_KIND: _vote}
