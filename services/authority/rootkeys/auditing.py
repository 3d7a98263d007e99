"""Brings the signer's audit into the ledger's folder, now and then and whenever it is asked for.

What it came to is anchored in this server's feed: after what is of weight at the next look, else
once a day.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from services.authority.rootkeys.auditcopy import (
    AuditContradictionError,
    AuditMonth,
    audit_month,
    month_of_key,
)
from services.base.ledger.checkpoint import verify_checkpoint
from services.kernel import canonical
from services.kernel.errors import NotFoundError, SeipdError, UnavailableError
from services.kernel.ids import parse_key
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.authority.rootkeys.auditcopy import AuditCopy
    from services.base.signing.keys_wire import AuditReply
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

LOOK_S: Final = 300.0
"""To look is a call, too, and so an entry: not more often than is of use."""
ANCHOR_AGAIN_MS: Final = 86_400_000
ANCHORED_FOR_MS: Final = 90 * 86_400_000
"""So long a copy that is gone for good is complained of."""
MAX_PAGE: Final = 1000
MAX_AT_ONCE: Final = 200_000


class AuditSource(Protocol):
    """The signer's side."""

    async def audit(self, *, month: str = "", first: int = 0, count: int = 100) -> AuditReply:
        """See GrpcKeys."""


class Anchors(Protocol):
    """What was said of the audit in the feeds."""

    def own(self) -> list[dict[str, Any]]:
        """Return what this server said of its signers, the newest last; see ``anchors``."""

    def all(self) -> list[dict[str, Any]]:
        """Return what every server said, each with its ``server_id``."""

    async def say(self, month: AuditMonth, *, size: int, root: bytes) -> None:
        """Anchor so many entries of a month.

        Raises:
            SeipdError: the ledger takes no writes now, or refuses it.
        """


class AuditService:
    """Keeps the copy; says so where the signer's story changes."""

    name: ClassVar[str] = "audit"

    def __init__(
        self,
        *,
        copy: AuditCopy,
        source: Callable[[], AuditSource | None],
        anchors: Anchors,
        clock: Clock,
        look_s: float = LOOK_S,
    ) -> None:
        self._copy = copy
        self._source = source
        self._anchors = anchors
        self._clock = clock
        self._followed: AuditMonth | None = None
        self._look_s = look_s
        self._turn = asyncio.Lock()
        self._contradiction = ""
        self._tasks = TaskOwner("audit")

    async def start(self) -> None:
        """Begin to look."""
        self._tasks.spawn(self._look_forever(), name="audit-look")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say whether the signer tells another story than before."""
        if self._contradiction:
            return Health(state=HealthState.DEGRADED, detail=self._contradiction)
        detail = "the signer's audit is kept" if self._source() else "no signer is here"
        return Health(state=HealthState.OK, detail=detail)

    async def shown(self, *, seconds: int | None, limit: int) -> dict[str, Any]:
        """Return the newest entries of the signer's audit, oldest first, as new as can be.

        Args:
            seconds: no older than that; of any age unless given.
            limit: so many at most.

        Raises:
            NotFoundError: ``no_audit``: there is no signer here, and never was one.
            CorruptError: the copy is damaged.
        """
        behind, since_ms = "", 0
        if seconds is not None:
            since_ms = self._clock.now_ms() - seconds * 1000
        try:
            await self.refresh()
        except SeipdError as error:
            behind = str(error)
        async with self._turn:
            logs = await asyncio.to_thread(self._copy.months)
            if not logs:
                raise NotFoundError(
                    f"no audit of a signer is here{': ' if behind else ''}{behind}",
                    code="no_audit",
                    mend="ask the server whose machine has the signer",
                )
            entries = await asyncio.to_thread(self._copy.newest, since_ms=since_ms, limit=limit)
        return {
            "entries": entries,
            "logs": [{"path": one.path, "vkey": one.verifier.vkey} for one in logs],
            "behind": behind,
        }

    async def verify(self) -> list[dict[str, Any]]:
        """Re-derive every tile of the copy; see ``AuditCopy.verify``."""
        async with self._turn:
            return await asyncio.to_thread(self._copy.verify)

    async def refresh(self) -> None:
        """Take what the signer wrote since.

        Raises:
            AuditContradictionError: ``audit_rolled_back`` or ``audit_rewritten``, by what is held
                or by what was anchored.
            NotFoundError: ``no_audit``: the signer has written nothing yet.
            UnavailableError: ``signer_unavailable``; ``audit_behind``.
            SeipdError: what it shows is no audit; a file is damaged, or the disk refused.
        """
        source = self._source()
        async with self._turn:
            try:
                if source is not None:
                    await self._follow(source)
                await asyncio.to_thread(self._require_anchored)
            except AuditContradictionError as error:
                self._contradiction = str(error)
                raise
            self._contradiction = ""

    async def anchor(self) -> None:
        """Say in this server's feed what the signer's audit came to, where that is due.

        Raises:
            SeipdError: the ledger takes no writes now; a file is damaged, or the disk refused.
        """
        async with self._turn:
            month = self._followed
            if month is None or self._contradiction:
                return
            size, root = await asyncio.to_thread(self._copy.held, month)
            if size and await asyncio.to_thread(self._is_due, month, size):
                await self._anchors.say(month, size=size, root=root)

    def anchored(self) -> list[dict[str, Any]]:
        """Return what every server said of its signers' audits."""
        return self._anchors.all()

    def _is_due(self, month: AuditMonth, size: int) -> bool:
        key = month.verifier.public_key
        said = next((one for one in self._anchors.own() if parse_key(one["key"]) == key), None)
        if said is None:
            return True
        before = said["month"], said["size"]
        if (month.month, size) <= before:
            return False
        is_old = self._clock.now_ms() - said["at_ms"] > ANCHOR_AGAIN_MS
        return is_old or not self._copy.is_quiet_since(month, said=before)

    def _require_anchored(self) -> None:
        since_ms = self._clock.now_ms() - ANCHORED_FOR_MS
        for said in self._anchors.own():
            if said["at_ms"] >= since_ms:
                self._copy.require_anchored(
                    month_of_key(said["month"], parse_key(said["key"])),
                    size=said["size"],
                    root=bytes.fromhex(said["root"]),
                    record=said["record"],
                )

    async def _follow(self, source: AuditSource) -> None:
        newest = await source.audit(count=1)
        last = audit_month(newest.month, newest.vkey)
        months = await asyncio.to_thread(self._copy.months)
        held = [one for one in months if one.name == last.name]
        if held and held[-1].month not in newest.months:
            have, _ = await asyncio.to_thread(self._copy.held, held[-1])
            raise _rolled_back(held[-1], shown=0, have=have)
        for text in sorted(newest.months):
            if not held or text >= held[-1].month:
                is_last = text == newest.month
                head = newest if is_last else await source.audit(month=text, count=1)
                await self._take(source, audit_month(text, head.vkey), head)
        self._followed = last

    async def _take(self, source: AuditSource, month: AuditMonth, head: AuditReply) -> None:
        have, root = await asyncio.to_thread(self._copy.held, month)
        if head.size < have:
            raise _rolled_back(month, shown=head.size, have=have)
        if head.size == have:
            await self._require_same(month, head.checkpoint.encode(), root)
            return
        entries: list[bytes] = []
        page = head
        while have + len(entries) < page.size or not entries:
            first = have + len(entries)
            page = await source.audit(month=month.month, first=first, count=MAX_PAGE)
            entries += [canonical.encode(one) for one in page.entries]
            if not page.entries or len(entries) > MAX_AT_ONCE:
                raise UnavailableError(
                    f"{page.size - have} entries are too many to be copied at once",
                    code="audit_behind",
                    mend="read them on the signer's machine: seipd-signer audit",
                )
        await asyncio.to_thread(self._copy.extend, month, entries, page.checkpoint.encode())

    async def _require_same(self, month: AuditMonth, checkpoint: bytes, root: bytes) -> None:
        signed = verify_checkpoint(checkpoint, month.verifier, month.verifier.name)
        if signed.root != root:
            raise await asyncio.to_thread(self._copy.contradicted, month, checkpoint)

    async def _look_forever(self) -> None:
        while True:
            try:
                await self.refresh()
            except SeipdError as error:
                logger.warning(
                    "the signer's audit is not copied: %s", error, extra={"code": error.code}
                )
            try:
                await self.anchor()
            except SeipdError as error:
                logger.info("the signer's audit is anchored later: %s", error)
            await asyncio.sleep(self._look_s)


def _rolled_back(month: AuditMonth, *, shown: int, have: int) -> AuditContradictionError:
    return AuditContradictionError(
        f"AUDIT_ROLLED_BACK: the signer shows {shown} entries of {month.month}, "
        f"{have} are held in {month.path}",
        code="audit_rolled_back",
        mend="the copy here is whole; somebody has changed the signer's folder",
    )
