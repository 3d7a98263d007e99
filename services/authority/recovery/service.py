"""Keeps a recovery key dealt: this server's word on its share; new dealings where the root is."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar

from services.authority.governance import parameters
from services.authority.recovery.messages import (
    ACK_KIND,
    GOOD,
    MIN_HOLDERS,
    SHARES_KIND,
    Head,
)
from services.authority.recovery.planning import (
    able_holders,
    deal_is_due,
    dealing_of,
    is_used,
    key_to_name,
    naming,
    records_of,
    sealed_share,
    shown_dealing,
    word_due,
)
from services.authority.recovery.view import (
    VIEW,
    head_of,
    numbers,
    standing_of,
    threshold_of,
    wanted_holders,
)
from services.authority.trust import view as trust_view
from services.authority.trust.tiers import TIER_VIEW
from services.base.ledger.changes import CHANGE_KIND
from services.base.signing import recovery_wire as wire
from services.base.signing.dealing import ShareError, open_share
from services.kernel.errors import ConflictError, SeipdError
from services.kernel.ids import b64u_decode, b64u_encode
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from services.authority.ports import Json, Ledger
    from services.authority.recovery.ports import RecoverySigner, Root
    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.author import Author
    from services.base.ledger.watching import Change
    from services.kernel.views import RosterReader

logger = logging.getLogger(__name__)

SETTLE_S = 10.0
"""Servers join in groups: a dealing waits until the holders stay the same for so long."""
RETRY_S = 30.0


class RecoveryService:
    """Speaks for this server's share; deals where the root key is."""

    name: ClassVar[str] = "recovery"

    def __init__(
        self,
        *,
        ledger: Ledger,
        author: Author,
        key: SigningKey,
        root: Root,
        signer: RecoverySigner | None,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._key = key
        self._root = root
        self._signer = signer
        self._settle_s = settle_s
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._tasks = TaskOwner("recovery")
        self._subscribed = False

    async def start(self) -> None:
        """Begin to look what is due."""
        if not self._subscribed:
            views = [VIEW, "roster", trust_view.VIEW, TIER_VIEW, parameters.VIEW]
            self._ledger.subscribe(views, self._told)
        self._subscribed = True
        self._changed.set()
        self._tasks.spawn(self._keep(), name="recovery-keep")

    async def stop(self) -> None:
        """Look no more."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say whether the root could be brought back, were it lost now."""
        state = self._ledger.state
        in_force, newest = numbers(state)
        head = head_of(state, in_force)
        if head is None:
            detail = "no recovery key is in force: were the root lost, it would stay so"
            return Health(state=HealthState.OK, detail=detail)
        if not self._is_named():
            detail = f"dealing {in_force} is not named in the roster yet: the root has to do that"
            return Health(state=HealthState.OK, detail=detail)
        if head.is_offline:
            return Health(state=HealthState.OK, detail="the operator has the recovery file")
        able = len(able_holders(state, in_force, self._roster()))
        if able < head.threshold:
            detail = (
                f"of {len(head.holders)} holders of shares {able} are left that can give theirs, "
                f"{head.threshold} are needed: were the root lost, it would stay lost"
                f"{self._renewal()}"
            )
            return Health(state=HealthState.DEGRADED, detail=detail)
        bad = standing_of(state, newest)["bad"]
        if bad:
            named = ", ".join(f"{at}: {said}" for at, said in sorted(bad.items()))
            detail = f"shares of dealing {newest} that are not good: {named}"
            return Health(state=HealthState.DEGRADED, detail=detail)
        detail = f"{head.threshold} of {len(head.holders)} servers bring a lost root back"
        return Health(state=HealthState.OK, detail=f"{detail}{self._renewal()}")

    def _renewal(self) -> str:
        """Say what only the operator can do about holders that are too few."""
        if wanted_holders(self._ledger.state, self._roster()):
            return ""
        return (
            f"; tier 1 is under {MIN_HOLDERS} servers now: seipd root shares --refresh where the "
            "root is puts the recovery key into a file instead"
        )

    def describe(self) -> Json:
        """Return the dealing in force and the one under way, with what holders said."""
        state, roster = self._ledger.state, self._roster()
        in_force, newest = numbers(state)
        return {
            "in_force": shown_dealing(state, in_force, roster),
            "under_way": shown_dealing(state, newest, roster) if newest != in_force else None,
            "named": self._is_named(),
            "wanted_holders": list(wanted_holders(state, roster)),
            "own": self._ledger.server_id,
        }

    def adopt(self, signer: RecoverySigner) -> None:
        """Have a signer from now on: the root was recovered here."""
        self._signer = signer
        self._changed.set()

    def _is_named(self) -> bool:
        state, chain = self._ledger.state, self._ledger.charter.chain
        return numbers(state)[0] > 0 and key_to_name(state, chain) is None

    async def deal(self) -> Json:
        """Deal a new recovery key now: to tier 1, or into a file while that is too small.

        Returns:
            ``number``, and the ``path`` of the file where there is one.

        Raises:
            ConflictError: ``no_root_here``.
            UnavailableError: ``signer_unavailable``.
        """
        signer = self._require_signer()
        async with self._turn:
            number = numbers(self._ledger.state)[1] + 1
            holders = wanted_holders(self._ledger.state, self._roster())
            if not holders:
                return {"number": number, "path": await self._write_file(signer, number)}
            keys = [self._ledger.charter.key_of(one) for one in holders]
            threshold = threshold_of(self._ledger.state, len(holders))
            reply = await signer.deal(
                wire.DealRequest(
                    mesh=self._ledger.mesh_id,
                    number=number,
                    threshold=threshold,
                    holders=[b64u_encode(one) for one in keys if one is not None],
                )
            )
            head = Head(
                number=number,
                recovery_key=b64u_decode(reply.recovery_key),
                signature=b64u_decode(reply.signature),
                threshold=threshold,
                holders=holders,
                answer=b64u_decode(reply.answer),
            )
            await self._tell(records_of(head, reply))
            return {"number": number, "path": None}

    async def _tell(self, drafts: list[tuple[str, Json]]) -> None:
        async with self._root.turn():
            records = [await self._root.sign_record(kind, body) for kind, body in drafts]
            await self._ledger.name_roster()
            await self._ledger.submit(records)

    async def _write_file(self, signer: RecoverySigner, number: int) -> str:
        request = wire.WriteRequest(mesh=self._ledger.mesh_id, number=number)
        reply = await signer.write(request)
        head = Head(
            number=number,
            recovery_key=b64u_decode(reply.recovery_key),
            signature=b64u_decode(reply.signature),
            threshold=0,
            holders=(),
            answer=b"",
        )
        await self._tell([(SHARES_KIND, head.body())])
        return reply.path

    async def _keep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RETRY_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                await self._speak()
                if self._signer is not None and self._root.holds_root:
                    await self.name_key()
                    await self._deal_if_due()
            except SeipdError as error:
                logger.info("recovery: %s", error, extra={"code": error.code})

    async def _speak(self) -> None:
        """Open this server's share as soon as it is there, and say what it found."""
        due = word_due(self._ledger.state, self._ledger.server_id)
        if due is None:
            return
        number, index = due
        verdict = await asyncio.to_thread(self._verdict, number, index)
        if verdict != GOOD:
            logger.error(
                "this server's share of dealing %d is not good", number, extra={"code": verdict}
            )
        body = {"number": number, "verdict": verdict}
        await self._ledger.submit([self._author.record(ACK_KIND, body)])

    def _verdict(self, number: int, index: int) -> str:
        state, charter = self._ledger.state, self._ledger.charter
        dealing = dealing_of(state, number, self._ledger.mesh_id, charter.key_of)
        try:
            open_share(
                self._key.seed, sealed_share(state, number, index), index=index, dealing=dealing
            )
        except ShareError as error:
            return error.code
        return GOOD

    async def name_key(self) -> None:
        """Name a key in the roster that came into force; from then on it can follow the root.

        Raises:
            UnavailableError: ``signer_unavailable``; the ledger takes no writes.
        """
        async with self._root.turn():
            charter = self._ledger.charter
            key = key_to_name(self._ledger.state, charter.chain)
            if key is None:
                return
            change = await self._root.sign_record(CHANGE_KIND, naming(charter, key))
            await self._ledger.submit([change])
            await self._ledger.name_roster()

    async def _deal_if_due(self) -> None:
        while self._is_due():
            holders = wanted_holders(self._ledger.state, self._roster())
            await asyncio.sleep(self._settle_s)
            if holders == wanted_holders(self._ledger.state, self._roster()):
                await self.deal()
                return

    def _is_due(self) -> bool:
        state = self._ledger.state
        return deal_is_due(state, self._roster()) or is_used(state, self._ledger.charter.chain)

    def _require_signer(self) -> RecoverySigner:
        if self._signer is None or not self._root.holds_root:
            raise ConflictError(
                "the root key is not on this server",
                code="no_root_here",
                mend="ask the server that holds the root key",
            )
        return self._signer

    def _roster(self) -> RosterReader:
        charter = self._ledger.charter
        return charter.at(charter.number)

    def _told(self, changes: list[Change]) -> None:
        self._changed.set()
