"""Answers the calls of the signer: who asks, what the rules say, what is written, what goes out.

Knows no transport. Nothing leaves before its audit entry is durable; a provider that hangs holds
its caller for a bounded time, and never more callers than there are threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from seipd.signerd.auditing import Asked, entry_of
from seipd.signerd.providers.base import require_length
from services.base.crypto.signatures import verify
from services.kernel.errors import ForbiddenError, SeipdError, UnavailableError
from services.kernel.signing import parse_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.signerd.clock import GuardedClock
    from seipd.signerd.core import KeyTable
    from seipd.signerd.providers.base import KeyProvider
    from seipd.signerd.rows import KeyRow

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROVIDER_TIMEOUT_S = 4.0
PROVIDER_THREADS = 8
MAX_IN_FLIGHT_PER_CALLER = 64

_PROVIDER_FAILED = "the key provider does not sign"


class Audit(Protocol):
    """Where entries go."""

    async def write(self, entry: bytes, *, at_ms: int) -> None:
        """Return once an entry is durable.

        Raises:
            UnavailableError: ``audit_unavailable``.
        """


class Keys(Protocol):
    """Where the key rows are."""

    def table_at(self, now_ms: int) -> KeyTable:
        """Return the rows as they stand at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and in which scopes it may; None is all of them."""

    name: str
    scopes: frozenset[str] | None = None
    known: bool = True

    def require(self, scope: str) -> None:
        """Refuse a scope that this caller may not use.

        Raises:
            ForbiddenError: ``caller_unknown`` or ``wrong_scope``.
        """
        if not self.known:
            raise ForbiddenError("this caller may not ask anything", code="caller_unknown")
        if self.scopes is not None and scope not in self.scopes:
            raise ForbiddenError("this caller may not use that scope", code="wrong_scope")


class Desk:
    """Sign and PublicKey."""

    def __init__(
        self,
        *,
        keys: Keys,
        provider: KeyProvider,
        audit: Audit,
        clock: GuardedClock,
        provider_timeout_s: float = PROVIDER_TIMEOUT_S,
    ) -> None:
        self._keys = keys
        self._provider = provider
        self._audit = audit
        self._clock = clock
        self._timeout_s = provider_timeout_s
        self._threads = asyncio.Semaphore(PROVIDER_THREADS)
        self._in_flight: Counter[str] = Counter()

    async def sign(self, caller: Caller, data: bytes, *, scope: str, key_id: str) -> bytes:
        """Return a signature over exactly these bytes, if caller and key may.

        Raises:
            ForbiddenError: ``caller_unknown``, ``wrong_scope``, ``key_retired``,
                ``rotation_in_progress`` or ``purpose_refused``.
            InputError: ``wrong_scope``, ``bad_key_id`` or ``message_too_long``.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``provider_unavailable``, ``audit_unavailable`` or ``caller_busy``.
        """
        asked = Asked(
            call="sign",
            caller=caller.name,
            scope=scope,
            key_id=key_id,
            digest=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
        )

        async def signed() -> bytes:
            caller.require(scope)
            now_ms = self._clock.now_ms()
            row = self._keys.table_at(now_ms).may_sign(scope, key_id, data, now_ms=now_ms)
            require_length(data, self._provider.max_bytes)
            signature = await self._signed(row, data)
            # The provider took its time: a window that closed meanwhile lets nothing out.
            now_ms = self._clock.now_ms()
            self._keys.table_at(now_ms).may_sign(scope, key_id, data, now_ms=now_ms)
            return signature

        return await self.audited(asked, signed)

    async def public_key(self, caller: Caller, *, scope: str, key_id: str) -> KeyRow:
        """Return a key's row.

        Raises:
            ForbiddenError: ``caller_unknown`` or ``wrong_scope``.
            InputError: ``wrong_scope`` or ``bad_key_id``.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``audit_unavailable`` or ``caller_busy``.
        """
        asked = Asked(call="public_key", caller=caller.name, scope=scope, key_id=key_id)

        async def found() -> KeyRow:
            caller.require(scope)
            return self._keys.table_at(self._clock.now_ms()).find(parse_scope(scope), key_id)

        return await self.audited(asked, found)

    async def audited(self, asked: Asked, work: Callable[[], Awaitable[T]]) -> T:
        """Do something and write down how it ended, before anybody hears of it.

        Raises:
            UnavailableError: ``audit_unavailable``; ``caller_busy``.
            SeipdError: what the work raises.
        """
        # Until it has ended well: who hangs up, or a fault of ours, is no grant.
        refusal: SeipdError | None = UnavailableError("it did not end", code="not_ended")
        self._in_flight[asked.caller] += 1
        try:
            if self._in_flight[asked.caller] > MAX_IN_FLIGHT_PER_CALLER:
                raise UnavailableError("this caller waits for many answers", code="caller_busy")
            result = await work()
        except SeipdError as error:
            refusal = error
            logger.warning("refused: %s", asked.call, extra={"code": error.code})
            raise
        else:
            refusal = None
            return result
        finally:
            self._in_flight[asked.caller] -= 1
            if not self._in_flight[asked.caller]:
                del self._in_flight[asked.caller]
            at_ms = self._clock.now_ms()
            entry = entry_of(asked, at_ms=at_ms, refusal=refusal)
            await self._audit.write(entry, at_ms=at_ms)

    async def _signed(self, row: KeyRow, data: bytes) -> bytes:
        try:
            signature = await self._asked_provider(row.handle, data)
        except SeipdError as error:
            logger.error("the key provider fails: %s", error, extra={"code": error.code})  # noqa: TRY400 (the error says all)
            raise UnavailableError(_PROVIDER_FAILED, code="provider_unavailable") from error
        except Exception as error:
            # Its text may hold what must not be told: a PIN, a path.
            logger.error("the key provider fails: %s", type(error).__name__)  # noqa: TRY400
            raise UnavailableError(_PROVIDER_FAILED, code="provider_unavailable") from error
        # A token may have lost its slot, a service its key version: never pass that on.
        if not verify(row.public_key, data, signature):
            logger.error("the key provider signed with another key", extra={"key_id": row.key_id})
            raise UnavailableError(_PROVIDER_FAILED, code="provider_unavailable")
        return signature

    async def _asked_provider(self, handle: str, data: bytes) -> bytes:
        if self._provider.in_memory:
            return self._provider.sign(handle, data)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._threads.acquire()
                return await self._in_a_thread(handle, data)
        except TimeoutError:
            raise UnavailableError("it does not answer", code="provider_hangs") from None

    def _in_a_thread(self, handle: str, data: bytes) -> asyncio.Future[bytes]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()
        # A call that hangs keeps its thread, and its end alone makes room for another. The thread
        # is none of a pool: those are waited for when the process ends.
        threading.Thread(
            target=self._call_provider,
            args=(loop, done, handle, data),
            name="provider-call",
            daemon=True,
        ).start()
        return done

    def _call_provider(
        self,
        loop: asyncio.AbstractEventLoop,
        done: asyncio.Future[bytes],
        handle: str,
        data: bytes,
    ) -> None:
        try:
            signature: bytes | BaseException = self._provider.sign(handle, data)
        except BaseException as error:  # noqa: BLE001 (it is raised where the call was made)
            signature = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._returned, done, signature)

    def _returned(self, done: asyncio.Future[bytes], signature: bytes | BaseException) -> None:
        self._threads.release()
        if done.done():
            return
        if isinstance(signature, BaseException):
            done.set_exception(signature)
        else:
            done.set_result(signature)
