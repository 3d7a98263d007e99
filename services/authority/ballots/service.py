"""Asks tier 1 whether a newcomer may become a server, and casts this server's vote on others'."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from services.authority.ballots.view import (
    APPROVED,
    BALLOT_KIND,
    DENIED,
    MAX_TRIES,
    OPEN,
    REFUSED,
    VIEW,
    VOTE_KIND,
    WINDOW_MS,
    refused,
    standing_of,
    tally_of,
)
from services.authority.governance import parameters
from services.authority.governance.polls import PREFIX
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    SeipdError,
    UnavailableError,
)
from services.kernel.ids import parse_key, server_id_of
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from services.authority.ports import Json, Ledger
    from services.base.ledger.author import Author
    from services.kernel.clock import Clock

HOLD_S = 15.0
WINDOW_S = WINDOW_MS // 1000


class BallotService:
    """The newcomer's request waits here for the votes; operators vote on each server."""

    name: ClassVar[str] = "ballots"

    def __init__(
        self, *, ledger: Ledger, author: Author, clock: Clock, hold_s: float = HOLD_S
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._clock = clock
        self._hold_s = hold_s
        self._changed = asyncio.Event()
        ledger.subscribe([VIEW], lambda _: self._tell())

    async def start(self) -> None:
        """Nothing to acquire."""

    async def stop(self) -> None:
        """Nothing to release."""

    def health(self) -> Health:
        """It is as well as the ledger is."""
        return Health(state=HealthState.OK)

    async def require_approval(self, newcomer: Json) -> None:
        """Open a ballot on a newcomer where the policy asks for one, or wait a while for its end.

        Args:
            newcomer: the fields of the record: ``ask``, ``invite``, ``key``, ``wireguard_key``,
                ``tls_key_hash`` and ``region``. While ``ask`` is the same, no second ballot opens.

        Raises:
            UnavailableError: ``enrollment_pending``: ask again; ``enrollment_timeout``.
            ForbiddenError: ``enrollment_denied``, or ``enrollment_refused``: for good.
            RejectedError: ``no_electors``: nobody is in tier 1; it is no try.
            ConflictError: ``key_in_use``: another WireGuard or TLS key was voted on.
        """
        if parameters.value(self._ledger.state, parameters.ENROLLMENT) != parameters.QUORUM:
            return
        server_id = server_id_of(parse_key(newcomer["key"]))
        held = self._ledger.state.get(VIEW, server_id)
        is_new = held is None or (held["ask"] != newcomer["ask"] and self._is_over(held))
        if is_new:
            await self._open(newcomer)
        # Who asks first is told at once how many have to approve; only asking again waits.
        held = await self._wait(server_id, 0.0 if is_new else self._hold_s)
        if any(held[name] != newcomer[name] for name in ("wireguard_key", "tls_key_hash")):
            raise ConflictError("the ballot is on other keys of this server", code="key_in_use")
        standing = standing_of(held, self._clock.now_ms())
        if standing != APPROVED:
            raise self._told(server_id, held, standing)

    async def vote(self, server_id: str, *, approve: bool) -> Json:
        """Cast this server's vote on the newest ballot on a newcomer.

        Raises:
            NotFoundError: ``unknown_ballot``.
            RejectedError: ``already_voted``, ``voting_over``, ``voting_expired`` or
                ``rejected_not_eligible``.
        """
        ballot = self._held(server_id)
        body = {"server": server_id, "ballot": ballot["poll"], "approve": approve}
        await self._ledger.submit([self._author.record(VOTE_KIND, body)])
        return self.ballot(server_id)

    def ballot(self, server_id: str) -> Json:
        """Return the newest ballot on a newcomer.

        Raises:
            NotFoundError: ``unknown_ballot``.
        """
        return self._shown(server_id, self._held(server_id))

    async def ballots(self) -> list[Json]:
        """Return the newest ballot on every newcomer, oldest first."""
        rows_held = self._ledger.state.scan(VIEW)
        held = await asyncio.to_thread(lambda: [(key, one) for _, key, one in rows_held])
        found = [self._shown(server_id, one) for server_id, one in held]
        return sorted(found, key=lambda one: (one["opened_ms"], one["server_id"]))

    def _held(self, server_id: str) -> Json:
        held: Json | None = self._ledger.state.get(VIEW, server_id)
        if held is None:
            raise NotFoundError(
                f"there is no ballot on {server_id[:40]} here (yet)",
                code="unknown_ballot",
                mend="seipd server enroll lists them",
            )
        return held

    async def _open(self, newcomer: Json) -> None:
        try:
            await self._ledger.name_roster()
            await self._ledger.submit([self._author.record(BALLOT_KIND, newcomer)])
        except RejectedError as error:
            # Two requests of one newcomer: the other one has opened it.
            if error.code not in ("ballot_open", "already_approved"):
                raise _forbidden(error) from error

    async def _wait(self, server_id: str, hold_s: float) -> Json:
        held = self._held(server_id)
        left_s = (held["closes_ms"] - self._clock.now_ms()) / 1000
        try:
            async with asyncio.timeout(max(0.0, min(hold_s, left_s))):
                while not self._is_over(held):
                    await self._changed.wait()
                    held = self._held(server_id)
        except TimeoutError:
            pass
        return self._held(server_id)

    def _is_over(self, ballot: Json) -> bool:
        return standing_of(ballot, self._clock.now_ms()) != OPEN

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _told(self, server_id: str, ballot: Json, standing: str) -> SeipdError:
        tally, tries = tally_of(ballot), MAX_TRIES - ballot["try"]
        if standing == OPEN:
            return UnavailableError(
                f"{tally.approvals} of {tally.needed} servers that have to approve did so",
                code="enrollment_pending",
                mend=f"seipd server enroll approve {server_id} on {tally.needed} servers, "
                f"within {WINDOW_S} s",
            )
        if standing == REFUSED:
            return _forbidden(refused())
        if standing == DENIED:
            return ForbiddenError(
                f"{tally.denials} of {tally.electors} servers denied it",
                code="enrollment_denied",
                mend=f"ask the mesh's operators; {tries} more tries",
            )
        return UnavailableError(
            f"{tally.approvals} of {tally.needed} servers approved within {WINDOW_S} s",
            code="enrollment_timeout",
            mend=f"try again when their operators are there; {tries} more tries",
        )

    def _shown(self, server_id: str, held: Json) -> Json:
        tally = tally_of(held)
        return {
            "server_id": server_id,
            "key": held["key"],
            "wireguard_key": held["wireguard_key"],
            "region": held["region"],
            "ballot": held["poll"],
            "by": held["by"],
            "state": standing_of(held, self._clock.now_ms()),
            "try": held["try"],
            "tries": MAX_TRIES,
            "opened_ms": held["opened_ms"],
            "expires_ms": held["closes_ms"],
            "electors": tally.electors,
            "needed": tally.needed,
            "approvals": tally.approvals,
            "denials": tally.denials,
            "votes": {f"{PREFIX}{voter}": vote for voter, vote in sorted(held["votes"].items())},
        }


def _forbidden(error: RejectedError) -> SeipdError:
    if error.code == "enrollment_refused":
        return ForbiddenError(str(error), code=error.code, mend=error.mend)
    return error
