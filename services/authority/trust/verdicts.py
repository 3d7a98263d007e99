"""The witnesses' verdicts on servers, and the tier that follows from them. Pure; no clock.

    tier/<server id>   {roster, tier, verdicts: {witness: {at_ms, evidence, reasons, record, tier}}}

Kind: ``trust.verdict`` {evidence, reasons, server, tier}, by a witness on its own feed: from what
it saw itself it holds a server to be of tier 1, or not (any more). What it saw is soft; that it
says so is a record. A server's tier changes with the verdict by which more than half of the
witnesses of that roster hold the same; until then it stays. So neither a minority that lies nor
silence moves anything. Of each witness its newest verdict counts while it is a witness and is not
proved to lie. A verdict under an older roster than one on any server before it has no effect: who
is a witness no more can't go on judging by not naming the new roster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from services.authority.trust.tiers import (
    PROOF_VIEW,
    TIER_VIEW,
    require_newest_roster,
    said_tier,
)
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import ServerId, parse_server_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.views import FoldContext

VERDICT_KIND: Final = "trust.verdict"

_Code = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_]{1,40}\Z")]
_Permille = Annotated[int, msgspec.Meta(ge=0, le=1000)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z.+_-]{1,32}\Z")]


class _Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    checks: _Count
    uptime_permille: _Permille | None
    platform: _Word | None
    release: _Word | None


class _Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: str
    tier: Literal[1, 2]
    reasons: Annotated[list[_Code], msgspec.Meta(max_length=8)]
    evidence: _Evidence


def verdict(context: FoldContext, body: dict[str, Any]) -> None:
    """Take a verdict into the state.

    Raises:
        InputError: malformed.
        RejectedError: ``rejected_unauthorised``, ``rejected_scope``, ``rejected_stale``,
            ``already_untrusted`` or ``no_change``.
    """
    wire = _parsed(body)
    witness, server_id = _require_witness(context), parse_server_id(wire.server)
    state, roster = context.state, context.roster
    if roster.server(server_id) is None:
        raise RejectedError(f"{server_id} is no server here", code="rejected_scope")
    if state.get(PROOF_VIEW, server_id) is not None:
        raise RejectedError(f"{server_id} is untrusted for good", code="already_untrusted")
    require_newest_roster(context)
    held = state.get(TIER_VIEW, server_id) or {"roster": 0, "verdicts": {}}
    verdicts = {
        name: one
        for name, one in held["verdicts"].items()
        if name in roster.witnesses and state.get(PROOF_VIEW, name) is None
    }
    if (before := verdicts.get(witness)) is not None and before["tier"] == wire.tier:
        raise RejectedError("this witness said so", code="no_change")
    verdicts[witness] = {
        "tier": wire.tier,
        "reasons": wire.reasons,
        "evidence": body["evidence"],
        "at_ms": context.stamp_ms,
        "record": context.record.id,
    }
    agreed = _agreed(verdicts, len(roster.witnesses))
    state.put(
        TIER_VIEW,
        server_id,
        {
            "roster": roster.number,
            "tier": said_tier(state, server_id).value if agreed is None else agreed,
            "verdicts": verdicts,
        },
    )


def given(held: Mapping[str, Any] | None, witness: ServerId) -> int | None:
    """Return a witness's newest verdict on a server, from that server's object."""
    found = (held or {}).get("verdicts", {}).get(witness)
    return found["tier"] if found is not None else None


def founder_verdict(own: ServerId) -> dict[str, Any]:
    """Return the body by which the first server of a mesh vouches for itself."""
    evidence = {"checks": 0, "uptime_permille": None, "platform": None, "release": None}
    return {"server": own, "tier": 1, "reasons": ["founder"], "evidence": evidence}


def _parsed(body: dict[str, Any]) -> _Verdict:
    try:
        return msgspec.convert(body, _Verdict)
    except msgspec.ValidationError as error:
        raise InputError(f"{VERDICT_KIND}: {error}") from error


def _require_witness(context: FoldContext) -> ServerId:
    author = context.author
    if context.record.actor != author.key:
        raise RejectedError(
            "a witness speaks for itself, on its own feed", code="rejected_unauthorised"
        )
    if author.server_id not in context.roster.witnesses:
        raise RejectedError(f"{author.server_id} is no witness", code="rejected_unauthorised")
    if context.state.get(PROOF_VIEW, author.server_id) is not None:
        raise RejectedError(f"{author.server_id} is untrusted", code="rejected_unauthorised")
    return author.server_id


def _agreed(verdicts: Mapping[str, Mapping[str, Any]], witness_count: int) -> int | None:
    """Return the tier that more than half of the witnesses hold; None where they don't agree."""
    said = [one["tier"] for one in verdicts.values()]
    return next((one for one in (1, 2) if 2 * said.count(one) > witness_count), None)
