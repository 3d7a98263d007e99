"""The tiers of trust: what each may do, and which one a server is in. Pure; no clock.

What a server may do follows from records alone, so it is the same on every server:

- *untrusted*: it was removed from the roster, or is proved to have told two stories. For good.
- *tier 2*: the roster names it.
- *tier 1*: more than half of the witnesses said so, and not more than half took it back since.

``RIGHTS`` is the whole of what the tiers differ in.

    electorate/newest   {roster}: the newest that a verdict, an enrolment or a poll stands under
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Final

from services.kernel.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.ids import ServerId
    from services.kernel.views import FoldContext, RosterReader, StateReader

PROOF_VIEW: Final = "trust"
TIER_VIEW: Final = "tier"
NEWEST_VIEW: Final = "electorate"
NEWEST: Final = "newest"
DEFAULT_CHECKS: Final = 100


class Tier(IntEnum):
    """How far a server is trusted; the numbers are names, not an order."""

    UNTRUSTED = 0
    ATTESTED = 1
    CERTIFIED = 2

    @property
    def label(self) -> str:
        """The name for people."""
        return "untrusted" if self is Tier.UNTRUSTED else f"tier {self.value}"


class Right(StrEnum):
    """What a server may do that not every one may."""

    READ = "read what is public"
    WRITE = "append records that have effect"
    SERVE = "serve endpoints, hold slices and a name server slot"
    WITNESS = "be named as a witness"
    VOTE = "propose and vote"
    HOLD_SHARE = "hold a share of the recovery key"
    RECOVER = "ask for shares to recover the root"
    GET_SECRETS = "get secrets of the mesh"


_CERTIFIED: Final = frozenset({Right.READ, Right.WRITE, Right.SERVE, Right.WITNESS})

RIGHTS: Final = {
    Tier.UNTRUSTED: frozenset({Right.READ}),
    Tier.CERTIFIED: _CERTIFIED,
    Tier.ATTESTED: _CERTIFIED | {Right.VOTE, Right.HOLD_SHARE, Right.RECOVER, Right.GET_SECRETS},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRules:
    """What the genesis says of tiers.

    ``attestation`` names the platforms of which one has to vouch for a server of tier 1; none for a
    mesh without such hardware. A genesis that says nothing has new servers begin in tier 1.
    """

    attestation: tuple[str, ...] = ()
    checks: int = DEFAULT_CHECKS
    newcomers: Tier = Tier.ATTESTED

    def value(self) -> dict[str, Any]:
        """Return the JSON object of the genesis."""
        return {
            "attestation": list(self.attestation),
            "checks": self.checks,
            "newcomers": self.newcomers.value,
        }


def rules_of(state: StateReader) -> TrustRules:
    """Return what the genesis says of tiers."""
    genesis = state.get("mesh", "genesis")
    return rules_in((genesis or {}).get("body", {}))


def rules_in(genesis_body: Mapping[str, Any]) -> TrustRules:
    """Return what the body of a genesis says of tiers."""
    said = genesis_body.get("trust")
    if said is None:
        return TrustRules()
    return TrustRules(
        attestation=tuple(said["attestation"]),
        checks=said["checks"],
        newcomers=Tier(said["newcomers"]),
    )


def said_tier(state: StateReader, server_id: ServerId) -> Tier:
    """Return the tier, 1 or 2, that the witnesses' verdicts give to a server of the roster."""
    held = state.get(TIER_VIEW, server_id)
    return Tier(held["tier"]) if held is not None else rules_of(state).newcomers


def tier_of(state: StateReader, roster: RosterReader, server_id: ServerId) -> Tier:
    """Return the tier of a server."""
    if roster.server(server_id) is None or state.get(PROOF_VIEW, server_id) is not None:
        return Tier.UNTRUSTED
    return said_tier(state, server_id)


def may(state: StateReader, roster: RosterReader, server_id: ServerId, right: Right) -> bool:
    """Say whether a server may do something."""
    return right in RIGHTS[tier_of(state, roster, server_id)]


def require_newest_roster(context: FoldContext) -> None:
    """Refuse a word that more than half of a roster's servers have to agree on, under an old one.

    Who speaks is counted among those of the roster that its feed had named. One that goes on naming
    that of a day with few servers would be a majority by itself.

    Raises:
        RejectedError: ``rejected_stale``: a later roster was spoken under.
    """
    number = context.roster.number
    before = context.state.get(NEWEST_VIEW, NEWEST)
    if before is not None and number < before["roster"]:
        raise RejectedError(
            "a later roster was voted or judged under",
            code="rejected_stale",
            mend="wait until this server has heard of it, and say it again",
        )
    if before is None or number > before["roster"]:
        context.state.put(NEWEST_VIEW, NEWEST, {"roster": number})
