"""Rotates the root: at a word, and by itself; signs certificates anew; closes the window behind it.

Runs on every server and does its work on the one whose signer has the root key in force, so two
never race. Whatever cuts it off, it goes on from what the chain and the signer say.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, ClassVar, Protocol

from services.authority.rootkeys import rotating
from services.authority.rootkeys.service import key_id_of
from services.authority.rootkeys.steadiness import Steadiness
from services.base.ledger.author import sign_by_root
from services.base.ledger.changes import CHANGE_KIND
from services.base.ledger.rootchain import ROTATE_KIND
from services.kernel.errors import ConflictError, NotFoundError, SeipdError, UnavailableError
from services.kernel.records import PLATFORM
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.authority.ports import Ledger
    from services.authority.rootkeys.seen import RootSeen
    from services.authority.rootkeys.service import RootKeysService
    from services.kernel.clock import Clock
    from services.kernel.signing import KeyRotation

logger = logging.getLogger(__name__)

LOOK_S = 1.0
ELSEWHERE_S = 600.0
"""After that a signer is asked again that had not the key in force; at once where another is."""
ROOT_VIEW = "root"
RETRY_S = 30.0


class KeyRotator(Protocol):
    """The signer's side of a rotation: it makes the successor of a key."""

    async def rotate(
        self, *, scope: str, old_key_id: str, new_key_id: str, opens_at_ms: int, closes_at_ms: int
    ) -> KeyRotation:
        """See RotatingSigner."""


class RotationService:
    """Brings the next root key into force, and the one before to rest."""

    name: ClassVar[str] = "root-rotation"

    def __init__(
        self,
        *,
        ledger: Ledger,
        root_keys: RootKeysService,
        rotator: KeyRotator | None,
        interval_ms: Callable[[], int],
        overlap_ms: int,
        seen: RootSeen,
        clock: Clock,
        look_s: float = LOOK_S,
    ) -> None:
        self._ledger = ledger
        self._root_keys = root_keys
        self._rotator = rotator
        self._interval_ms = interval_ms
        self._overlap_ms = overlap_ms
        self._seen = seen
        self._clock = clock
        self._look_s = look_s
        self._trouble = ""
        self._disk_trouble = ""
        self._elsewhere: tuple[bytes, float] | None = None
        self._steadiness = Steadiness()
        self._tasks = TaskOwner("root-rotation")

    async def start(self) -> None:
        """Begin to look what is due.

        Raises:
            CorruptError: what was seen of the chain can't be read.
        """
        await asyncio.to_thread(self._seen.load)
        # At once, not at the next look: nobody puts back what was heard a moment ago.
        self._ledger.subscribe([ROOT_VIEW], lambda _: self._remember())
        self._remember()
        self._tasks.spawn(self._keep(), name="root-rotation-keep")

    async def stop(self) -> None:
        """Look no more."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say what keeps a rotation from going on."""
        trouble = self.rolled_back() or self._disk_trouble or self._trouble
        if trouble:
            return Health(state=HealthState.DEGRADED, detail=trouble)
        generation = self._ledger.charter.chain.newest.generation
        return Health(state=HealthState.OK, detail=f"generation {generation} is in force")

    def rolled_back(self) -> str:
        """Say whether the chain is an older one than was seen here; empty where it is not."""
        return self._seen.trouble(self._ledger.charter.chain)

    def adopt(self, rotator: KeyRotator) -> None:
        """Have the signer here make the next keys: a recovery brought the root to it."""
        self._rotator = rotator
        self._elsewhere = None

    async def rotate(self, *, overlap_ms: int | None = None) -> None:
        """Bring the next root key into force.

        Asked again after it was cut off, it goes on with the key that the signer has made.

        Raises:
            InputError: ``bad_overlap``.
            ConflictError: ``rotation_in_progress``; ``root_fork``; ``not_rotated``: something else
                took the place.
            NotFoundError: ``no_root_key``: the signer here has another one.
            UnavailableError: ``signer_unavailable``; ``read_only`` or ``clock_off``.
        """
        self._root_keys.require_signer()
        async with self._root_keys.turn():
            await self._rotate(self._overlap_ms if overlap_ms is None else overlap_ms)

    async def _rotate(self, overlap_ms: int) -> None:
        signer, charter = self._root_keys.require_signer(), self._ledger.charter
        now_ms, newest = self._clock.now_ms(), self._ledger.charter.chain.newest
        rotating.require_rotatable(charter, now_ms=now_ms, overlap_ms=overlap_ms)
        # Before the signer opens a window: what can't be told until it closes loses the root.
        self._ledger.require_writable()
        old_id = await key_id_of(signer, newest)
        new_id = rotating.root_key_id(newest.generation + 1)
        made = await self._require_rotator().rotate(
            scope=PLATFORM,
            old_key_id=old_id,
            new_key_id=new_id,
            opens_at_ms=now_ms,
            closes_at_ms=now_ms + overlap_ms,
        )
        link = rotating.next_link(
            charter,
            made.new_public_key,
            now_ms=now_ms,
            closes_ms=made.closes_at_ms,
            interval_ms=self._interval_ms(),
        )
        claim = link.claim(self._ledger.mesh_id)
        endorsement = await signer.sign(claim, scope=PLATFORM, key_id=old_id)
        record = await sign_by_root(
            signer,
            kind=ROTATE_KIND,
            body=dataclasses.replace(link, endorsement=endorsement).value(),
            key_id=new_id,
            public_key=made.new_public_key,
            mesh_id=self._ledger.mesh_id,
            clock=self._clock,
        )
        await self._ledger.submit([record])
        if self._ledger.charter.chain.of_key(made.new_public_key) is None:
            raise ConflictError("the next root key did not come into force", code="not_rotated")
        logger.info("root generation %d is in force", link.generation)
        await self._ledger.name_roster()

    async def go_on(self) -> bool:
        """Do one step of what is left of a rotation; say whether there was any.

        Raises:
            SeipdError: what is left can't be done now.
        """
        async with self._root_keys.turn():
            charter = self._ledger.charter
            before = rotating.window_before(charter)
            if before is None:
                return False
            if left := rotating.to_sign_anew(charter):
                body = rotating.anew(charter, left)
            elif self._clock.now_ms() > (before.closes_ms or 0):
                body = rotating.closing(charter, before.generation)
            else:
                return False
            await self._ledger.submit([await self._root_keys.sign_record(CHANGE_KIND, body)])
            await self._ledger.name_roster()
            return True

    async def _keep(self) -> None:
        """Look again and again; only where the signer has the key in force."""
        asked: bytes | None = None
        while True:
            await asyncio.sleep(RETRY_S if self._trouble else self._look_s)
            newest = self._ledger.charter.chain.newest
            self._remember()
            now_ms, monotonic_s = self._clock.now_ms(), self._clock.monotonic_s()
            self._steadiness.look(now_ms=now_ms, monotonic_s=monotonic_s)
            if not self._root_keys.holds_root or self._is_elsewhere(newest.public_key):
                continue
            try:
                if newest.public_key != asked:
                    if await self._is_cut_off():
                        await self.rotate()
                    asked = newest.public_key
                while await self.go_on():
                    pass
                if now_ms >= rotating.due_ms(newest, self._interval_ms()):
                    self._require_steady(monotonic_s)
                    await self.rotate()
            except NotFoundError:
                self._trouble = ""  # the signer has another key: it is in force elsewhere
                self._elsewhere = newest.public_key, self._clock.monotonic_s() + ELSEWHERE_S
                self._root_keys.say_elsewhere()
            except SeipdError as error:
                self._tell(error)
            else:
                self._trouble = ""
                self._root_keys.say_here()

    def _require_steady(self, monotonic_s: float) -> None:
        if trouble := self._steadiness.trouble(monotonic_s=monotonic_s):
            raise UnavailableError(
                trouble,
                code="clock_jumped",
                mend="look at the clock; seipd root rotate does it now",
            )

    def _is_elsewhere(self, root_key: bytes) -> bool:
        """Say whether the signer did not have this key a moment ago: each look is a call, too."""
        if self._elsewhere is None or self._elsewhere[0] != root_key:
            return False
        return self._clock.monotonic_s() < self._elsewhere[1]

    def _remember(self) -> None:
        try:
            self._seen.note(self._ledger.charter.chain)
        except SeipdError as error:
            self._disk_trouble = f"the root key that was seen can't be written down: {error}"
        else:
            self._disk_trouble = ""

    def _tell(self, error: SeipdError) -> None:
        if self._trouble != str(error):
            logger.warning("the root is not rotated: %s", error, extra={"code": error.code})
        self._trouble = str(error)

    async def _is_cut_off(self) -> bool:
        """Say whether the signer has made a key that follows, and the chain does not have it.

        Raises:
            NotFoundError: ``no_root_key``: it has not the one in force.
        """
        newest = self._ledger.charter.chain.newest
        signer = self._root_keys.require_signer()
        await key_id_of(signer, newest)
        try:
            key_id = rotating.root_key_id(newest.generation + 1)
            await signer.public_key(scope=PLATFORM, key_id=key_id)
        except NotFoundError:
            return False
        return True

    def _require_rotator(self) -> KeyRotator:
        if self._rotator is None:
            raise UnavailableError(
                "a signer makes keys for its own machine alone",
                code="signer_unavailable",
                mend="run seipd root rotate on the machine of the signer",
            )
        return self._rotator
