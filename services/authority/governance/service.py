"""Governance as this server takes part in it: tells what is in force, proposes, votes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from services.authority.governance import parameters
from services.authority.governance.polls import PREFIX
from services.authority.governance.view import (
    KINDS,
    PROPOSE_KIND,
    VIEW,
    VOID,
    VOTE_KIND,
    standing_of,
    tally_of,
)
from services.kernel.errors import ConflictError, InputError, NotFoundError
from services.kernel.hlc import hlc_ms
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from services.authority.ports import Json, Ledger
    from services.base.ledger.author import Author
    from services.base.ledger.standing import Item
    from services.kernel.clock import Clock

MIN_PREFIX_CHARS = 4
_COUNTS = ("electors", "needed", "approvals", "denials")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A change that an operator wants; ``old_value`` as it is now where None."""

    parameter: str
    new_value: Any
    old_value: Any = None
    expires_s: int
    reason: str = ""


class GovernanceService:
    """Reads the parameters, and speaks with this server's vote."""

    name: ClassVar[str] = "governance"

    def __init__(self, *, ledger: Ledger, author: Author, clock: Clock) -> None:
        self._ledger = ledger
        self._author = author
        self._clock = clock
        self._values: dict[str, parameters.Value] = {}
        ledger.subscribe([parameters.VIEW], lambda _: self._values.clear())

    async def start(self) -> None:
        """Nothing to acquire."""

    async def stop(self) -> None:
        """Nothing to release."""

    def health(self) -> Health:
        """It is as well as the ledger is."""
        return Health(state=HealthState.OK)

    def number(self, name: str) -> int:
        """Return what a parameter is now that is a whole number; cheap enough for each request.

        Raises:
            RejectedError: ``unknown_parameter``.
        """
        found = self._values.get(name)
        if found is None:
            found = self._values[name] = parameters.number(self._ledger.state, name)
        return int(found)

    def parameters(self) -> list[Json]:
        """Return every parameter: what it is, may be, and by which proposal."""
        state = self._ledger.state
        return [
            {
                "name": one.name,
                "value": parameters.value(state, one.name),
                "default": one.default,
                "range": one.range,
                "proposal": parameters.set_by(state, one.name) or None,
                "meaning": one.meaning,
            }
            for one in parameters.PARAMETERS.values()
        ]

    async def proposals(self) -> list[Json]:
        """Return every proposal, oldest first, with votes on it that have no effect, and why.

        Proposals that have no effect themselves stand last, as ``void``. Of what has no effect only
        what was not settled long ago is remembered.
        """
        void = self._ledger.without_effect(KINDS)
        rows_held = self._ledger.state.scan(VIEW)
        held = await asyncio.to_thread(lambda: [(key, one) for _, key, one in rows_held])
        rows = sorted(
            (self._shown(key, one) for key, one in held),
            key=lambda row: (row["opened_ms"], row["id"]),
        )
        for row in rows:
            row["without_effect"] = [
                {"record": item.record.id, "server": item.author, "why": item.refusal}
                for item in void
                if item.record.body.get("proposal") == row["id"]
            ]
        return rows + [_void(item) for item in void if item.record.kind == PROPOSE_KIND]

    async def propose(self, wish: Wish) -> Json:
        """Propose to change a parameter; the proposer's own vote is still to be cast.

        Raises:
            RejectedError: ``unknown_parameter``, ``out_of_range``, ``stale_value``, ``no_change``,
                ``bad_expiry``, ``limit_exceeded``, ``rejected_stale`` or
                ``rejected_not_eligible``.
        """
        current = parameters.value(self._ledger.state, wish.parameter)
        body = {
            "parameter": wish.parameter,
            "old_value": current if wish.old_value is None else wish.old_value,
            "new_value": wish.new_value,
            "expires_ms": self._clock.now_ms() + wish.expires_s * 1000,
            "reason": wish.reason,
        }
        record = self._author.record(PROPOSE_KIND, body)
        await self._ledger.name_roster()
        await self._ledger.submit([record])
        return self._shown(record.id, self._ledger.state.get(VIEW, record.id))

    async def vote(self, proposal: str, *, approve: bool) -> Json:
        """Cast this server's vote on a proposal, named by its id or the beginning of that.

        Raises:
            NotFoundError: ``unknown_proposal``.
            ConflictError: ``ambiguous``: several begin so.
            RejectedError: ``already_voted``, ``voting_over``, ``voting_expired``, ``stale_value``
                or ``rejected_not_eligible``.
        """
        poll = self._named(proposal)
        body = {"proposal": poll, "approve": approve}
        await self._ledger.submit([self._author.record(VOTE_KIND, body)])
        return self._shown(poll, self._ledger.state.get(VIEW, poll))

    def _named(self, text: str) -> str:
        state = self._ledger.state
        if state.get(VIEW, text) is not None:
            return text
        if len(text) < MIN_PREFIX_CHARS:
            raise InputError(f"{MIN_PREFIX_CHARS} characters of an id at least, please")
        begin_so = [key for _, key, _ in state.scan(VIEW) if key.startswith(text)]
        if not begin_so:
            raise NotFoundError(
                f"there is no proposal {text[:32]} here (yet)",
                code="unknown_proposal",
                mend="seipd governance proposals lists them",
            )
        if len(begin_so) > 1:
            raise ConflictError(f"several proposals begin with {text[:32]}", code="ambiguous")
        return begin_so[0]

    def _shown(self, poll: str, held: Json) -> Json:
        tally = tally_of(held)
        return {
            "id": poll,
            "parameter": held["parameter"],
            "old_value": held["old_value"],
            "new_value": held["new_value"],
            "reason": held["reason"],
            "proposer": held["proposer"],
            "opened_ms": held["opened_ms"],
            "expires_ms": held["closes_ms"],
            "roster": held["roster"],
            "state": standing_of(self._ledger.state, held, self._clock.now_ms()),
            "electors": tally.electors,
            "needed": tally.needed,
            "approvals": tally.approvals,
            "denials": tally.denials,
            "votes": {f"{PREFIX}{voter}": vote for voter, vote in sorted(held["votes"].items())},
            "why": None,
            "without_effect": [],
        }


def _void(item: Item) -> Json:
    body, absent = item.record.body, dict.fromkeys(_COUNTS)
    said = {name: _scalar(body.get(name)) for name in ("parameter", "old_value", "new_value")}
    return {
        "id": item.record.id,
        **said,
        "reason": _scalar(body.get("reason")),
        "proposer": item.author,
        "opened_ms": hlc_ms(item.hlc),
        "expires_ms": _scalar(body.get("expires_ms")),
        "roster": item.roster_number,
        "state": VOID,
        **absent,
        "votes": {},
        "why": item.refusal,
        "without_effect": [],
    }


def _scalar(value: object) -> int | str | None:
    """Return what a malformed proposal said, if a table can show it."""
    return value if isinstance(value, int | str) else None
