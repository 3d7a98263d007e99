"""Announces this server's zone key; beside the root's signer it keeps the DNSKEY set signed.

The entry point (KSK) never leaves the signer, where it signs DNSKEY sets and nothing else. The
set is signed anew when a name server comes, goes or changes its key, and when half of the
signature's life is over: a signer that is away for a week is not missed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import msgspec

from services.authority.dnskeys import view
from services.authority.names.view import VIEW as NAMES_VIEW
from services.authority.names.view import slots_held
from services.authority.trust import view as trust_view
from services.kernel.errors import NotFoundError, SeipdError
from services.kernel.ids import b64u_encode
from services.kernel.service import Health, HealthState
from services.kernel.signing import DNSKEY_PURPOSE, PLATFORM_SCOPE
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.authority.ports import Json, Ledger
    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.author import Author
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.kernel.signing import Signer
    from services.kernel.views import RosterReader

logger = logging.getLogger(__name__)

KSK_ID: Final = "dns-ksk-1"
LIFETIME_S: Final = 14 * 86_400
RENEW_S: Final = LIFETIME_S // 2
ALARM_S: Final = 3 * 86_400
SKEW_S: Final = 3600
LOOK_S: Final = 60.0
RETRY_S: Final = 30.0


class Root(Protocol):
    """The root as this server reaches it."""

    @property
    def holds_root(self) -> bool:
        """Whether the signer is at hand."""

    def turn(self) -> asyncio.Lock:
        """Return the lock under which the root acts."""

    def require_signer(self) -> Signer:
        """Return the signer that has the root key."""

    async def require_key(self) -> None:
        """Make sure that it has the one in force."""

    async def sign_record(self, kind: str, body: Json) -> Record:
        """Return a record that the root signed."""


class KeyMaker(Protocol):
    """A signer on this machine, which makes keys."""

    async def make(self, *, scope: str, key_id: str, purposes: list[str]) -> object:
        """Have a key made, unless it is there."""


class ZoneKeysService:
    """See the module."""

    name: ClassVar[str] = "dns-keys"

    def __init__(
        self,
        *,
        ledger: Ledger,
        author: Author,
        key: SigningKey,
        root: Root,
        maker: Callable[[], KeyMaker | None],
        clock: Clock,
    ) -> None:
        self.key = key
        self._ledger = ledger
        self._author = author
        self._root = root
        self._maker = maker
        self._clock = clock
        self._changed = asyncio.Event()
        self._trouble = ""
        self._is_subscribed = False
        self._tasks = TaskOwner("dns-keys")

    async def start(self) -> None:
        """Begin to keep the keys as they should be."""
        if not self._is_subscribed:
            views = [NAMES_VIEW, view.ZSK_VIEW, view.VIEW, "roster", trust_view.VIEW]
            self._ledger.subscribe(views, lambda _: self._changed.set())
        self._is_subscribed = True
        self._tasks.spawn(self._keep(), name="dns-keys-keep")

    async def stop(self) -> None:
        """Keep nothing any more; may be called twice."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say whether the zone is signed, and until when its keys are."""
        keys = view.keys_in_force(self._ledger.state)
        if keys is None:
            detail = f"the zone is not signed{f': {self._trouble}' if self._trouble else ''}"
            state = HealthState.DEGRADED if self._trouble else HealthState.OK
            return Health(state=state, detail=detail)
        left_s = keys.expiration - self._now_s()
        if left_s < ALARM_S:
            detail = f"the zone's keys are signed for {max(left_s, 0) // 3600} hours more: "
            return Health(
                state=HealthState.DEGRADED,
                detail=detail + (self._trouble or "the server that holds the root is away"),
            )
        if self._trouble:
            return Health(state=HealthState.DEGRADED, detail=self._trouble)
        return Health(state=HealthState.OK, detail=f"{len(keys.zsks)} name servers sign the zone")

    async def look(self) -> None:
        """Do what is to be done now.

        Raises:
            SeipdError: it can't be.
        """
        self._changed.clear()
        await self._announce()
        if self._root.holds_root and self._is_due():
            async with self._root.turn():
                await self._publish(rekey=False)

    async def rekey(self) -> None:
        """Begin with the entry point that the signer here has: the one before is lost.

        Raises:
            NotFoundError: ``no_root_key``; ``no_zone_key``: a remote signer has no such key.
            UnavailableError: ``signer_unavailable``.
        """
        self._root.require_signer()
        async with self._root.turn():
            await self._publish(rekey=True)

    async def _announce(self) -> None:
        state, own = self._ledger.state, self._ledger.server_id
        text = b64u_encode(self.key.public_key)
        if own not in slots_held(state, self._roster()).values():
            return
        if (state.get(view.ZSK_VIEW, own) or {}).get("key") != text:
            await self._ledger.submit([self._author.record(view.ZSK_KIND, {"key": text})])

    def _is_due(self) -> bool:
        wanted = view.keys_wanted(self._ledger.state, self._roster())
        keys = view.keys_in_force(self._ledger.state)
        if not wanted or keys is None:
            return bool(wanted)
        return keys.zsks != wanted or keys.expiration - self._now_s() < RENEW_S

    async def _publish(self, *, rekey: bool) -> None:
        await self._root.require_key()
        state, signer = self._ledger.state, self._root.require_signer()
        before = view.keys_in_force(state)
        maker = self._maker()
        if maker is not None and (before is None or rekey):
            await maker.make(scope=PLATFORM_SCOPE, key_id=KSK_ID, purposes=[DNSKEY_PURPOSE])
        ksk = await _entry_point(signer)
        if before is not None and before.ksk != ksk and not rekey:
            raise NotFoundError(
                "the signer here does not have the key that the parent's DS names",
                code="no_zone_key",
                mend="seipd dns rekey begins a new one; then change the DS at the parent",
            )
        now_s = self._now_s()
        keys = view.KeysWire(
            ksk=ksk,
            zsks=view.keys_wanted(state, self._roster()),
            ttl=view.TTL_S,
            inception=now_s - SKEW_S,
            expiration=now_s + LIFETIME_S,
            signature="",
        )
        signature = await signer.sign(
            keys.signed(view.apex_of(state)), scope=PLATFORM_SCOPE, key_id=KSK_ID
        )
        body = msgspec.structs.asdict(keys) | {"signature": b64u_encode(signature)}
        await self._ledger.submit([await self._root.sign_record(view.KEYS_KIND, body)])
        logger.info("%d name servers sign the zone", len(keys.zsks))

    async def _keep(self) -> None:
        while True:
            pause_s = LOOK_S
            try:
                await self.look()
            except SeipdError as error:
                # The root may have gone to another server: its signer is the one to act.
                self._tell("" if error.code == "no_root_key" else str(error))
                pause_s = RETRY_S
            else:
                self._tell("")
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            logger.warning("the keys of the zone: %s", trouble)
        self._trouble = trouble

    def _roster(self) -> RosterReader:
        charter = self._ledger.charter
        return charter.at(charter.number)

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1000


async def _entry_point(signer: Signer) -> str:
    """Return the entry point's public key.

    Raises:
        NotFoundError: ``no_zone_key``.
    """
    try:
        info = await signer.public_key(scope=PLATFORM_SCOPE, key_id=KSK_ID)
    except NotFoundError as error:
        raise NotFoundError(
            f"the signer has no key {KSK_ID}",
            code="no_zone_key",
            mend=f"seipd-signer keygen --key-id {KSK_ID} --purpose {DNSKEY_PURPOSE}, "
            "on its machine; or seipd dns rekey",
        ) from error
    return b64u_encode(info.public_key)
