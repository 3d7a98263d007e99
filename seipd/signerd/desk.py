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
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from seipd.signerd.auditing import Asked, entry_of
from seipd.signerd.providers.base import require_length
from seipd.signerd.strangers import Strangers
from services.base.crypto.signatures import verify
from services.kernel.errors import ForbiddenError, SeipdError, UnavailableError
from services.kernel.signing import parse_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

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

    async def write(self, entries: Sequence[bytes], *, at_ms: int) -> None:
        """Return once all of these entries are durable.

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

    def require_known(self) -> None:
        """Refuse a caller that may not ask for anything.

        Raises:
            ForbiddenError: ``caller_unknown``.
        """
        if not self.known:
            raise ForbiddenError("this caller may not ask anything", code="caller_unknown")

    def require(self, scope: str) -> None:
        """Refuse a scope that this caller may not use.

        Raises:
            ForbiddenError: ``caller_unknown`` or ``wrong_scope``.
        """
        self.require_known()
        if self.scopes is not None and scope not in self.scopes:
            raise ForbiddenError("this caller may not use that scope", code="wrong_scope")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A signature that is asked for."""

    data: bytes
    scope: str
    key_id: str

    def written(self) -> tuple[str, int]:
        """Return what is written down of the bytes: their SHA-256, and how many they are."""
        return hashlib.sha256(self.data).hexdigest(), len(self.data)


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
        self._strangers = Strangers()

    async def sign(self, caller: Caller, data: bytes, *, scope: str, key_id: str) -> bytes:
        """Return a signature over exactly these bytes, if caller and key may.

        Raises:
            ForbiddenError: ``caller_unknown``, ``wrong_scope``, ``key_retired``,
                ``rotation_in_progress`` or ``purpose_refused``.
            InputError: ``wrong_scope``, ``bad_key_id`` or ``message_too_long``.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``provider_unavailable``, ``audit_unavailable`` or ``caller_busy``.
        """
        wanted = Wanted(data=data, scope=scope, key_id=key_id)
        (answer,) = await self.sign_all(caller, (wanted,))
        if isinstance(answer, SeipdError):
            raise answer
        return answer

    async def sign_all(
        self, caller: Caller, wanted: Sequence[Wanted]
    ) -> Sequence[bytes | SeipdError]:
        """Return for each the signature, or why there is none; all are written down before.

        Raises:
            UnavailableError: ``audit_unavailable``.
        """
        # Until it has ended well: who hangs up, or a fault of ours, is no grant.
        answers: list[bytes | SeipdError] = [_not_ended()] * len(wanted)
        try:
            with self._room(caller.name, len(wanted)):
                if self._provider.in_memory:
                    self._sign_here(caller, wanted, answers)
                else:
                    await self._sign_there(caller, wanted, answers)
        except SeipdError as error:
            answers = [error] * len(wanted)
        finally:
            for refusal in (one for one in answers if isinstance(one, SeipdError)):
                logger.warning("refused: sign", extra={"code": refusal.code})
            await self._write(_ends(caller, wanted, answers), is_known=caller.known)
        return answers

    async def _write(
        self, ends: Iterator[tuple[Asked, SeipdError | None]], *, is_known: bool
    ) -> None:
        """Write down how calls ended; of strangers so many a second."""
        at_ms = self._clock.now_ms()
        if not is_known:
            times = self._strangers.told(now_ms=at_ms)
            if not times:
                return
            ends = ((replace(asked, times=times), why) for asked, why in islice(ends, 1))
        entries = [entry_of(asked, at_ms=at_ms, refusal=refusal) for asked, refusal in ends]
        await self._audit.write(entries, at_ms=at_ms)

    def _sign_here(
        self, caller: Caller, wanted: Sequence[Wanted], answers: list[bytes | SeipdError]
    ) -> None:
        """Sign with keys of this process: the last signature of each is checked, for all before.

        To check one takes longer than to make two. A key that was damaged in memory meanwhile is
        found out all the same, and one signature alone is always checked.
        """
        made: dict[bytes, list[int]] = {}
        for at, one in enumerate(wanted):
            try:
                row = self._may_sign(caller, one)
                with _failing_provider():
                    answers[at] = self._provider.sign(row.handle, one.data)
            except SeipdError as error:
                answers[at] = error
            else:
                made.setdefault(row.public_key, []).append(at)
        for public_key, places in made.items():
            last = places[-1]
            try:
                _require_good(public_key, wanted[last].data, answers[last])
            except UnavailableError as error:
                for at in places:
                    answers[at] = error

    async def _sign_there(
        self, caller: Caller, wanted: Sequence[Wanted], answers: list[bytes | SeipdError]
    ) -> None:
        """Have keys elsewhere sign, which takes its time: nothing of what they say is believed."""

        async def sign(at: int) -> None:
            one = wanted[at]
            try:
                row = self._may_sign(caller, one)
                with _failing_provider():
                    signature = await self._asked_provider(row.handle, one.data)
                _require_good(row.public_key, one.data, signature)
                # A window that closed meanwhile lets nothing out.
                self._may_sign(caller, one)
                answers[at] = signature
            except SeipdError as error:
                answers[at] = error

        async with asyncio.TaskGroup() as group:
            for at in range(len(wanted)):
                group.create_task(sign(at))

    def _may_sign(self, caller: Caller, wanted: Wanted) -> KeyRow:
        caller.require(wanted.scope)
        now_ms = self._clock.now_ms()
        table = self._keys.table_at(now_ms)
        row = table.may_sign(wanted.scope, wanted.key_id, wanted.data, now_ms=now_ms)
        require_length(wanted.data, self._provider.max_bytes)
        return row

    async def public_key(self, caller: Caller, *, scope: str, key_id: str) -> KeyRow:
        """Return a key's row.

        Raises:
            ForbiddenError: ``caller_unknown`` or ``wrong_scope``.
            InputError: ``wrong_scope`` or ``bad_key_id``.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``audit_unavailable`` or ``caller_busy``.
        """
        asked = Asked(
            call="public_key",
            caller=caller.name,
            scope=scope,
            key_id=key_id,
            is_known=caller.known,
        )

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
        refusal: SeipdError | None = _not_ended()
        try:
            with self._room(asked.caller, 1):
                result = await work()
        except SeipdError as error:
            refusal = error
            logger.warning("refused: %s", asked.call, extra={"code": error.code})
            raise
        else:
            refusal = None
            return result
        finally:
            await self._write(iter([(asked, refusal)]), is_known=asked.is_known)

    @contextlib.contextmanager
    def _room(self, caller: str, count: int) -> Iterator[None]:
        """Hold the room that a caller's answers take while they are made.

        Raises:
            UnavailableError: ``caller_busy``.
        """
        self._in_flight[caller] += count
        try:
            if self._in_flight[caller] > MAX_IN_FLIGHT_PER_CALLER:
                raise UnavailableError("this caller waits for many answers", code="caller_busy")
            yield
        finally:
            self._in_flight[caller] -= count
            if not self._in_flight[caller]:
                del self._in_flight[caller]

    async def _asked_provider(self, handle: str, data: bytes) -> bytes:
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


@contextlib.contextmanager
def _failing_provider() -> Iterator[None]:
    """Tell the log why a provider failed, and the caller that it did.

    Raises:
        UnavailableError: ``provider_unavailable``.
    """
    try:
        yield
    except SeipdError as error:
        logger.error("the key provider fails: %s", error, extra={"code": error.code})  # noqa: TRY400 (the error says all)
        raise UnavailableError(_PROVIDER_FAILED, code="provider_unavailable") from error
    except Exception as error:
        # Its text may hold what must not be told: a PIN, a path.
        logger.error("the key provider fails: %s", type(error).__name__)  # noqa: TRY400
        raise UnavailableError(_PROVIDER_FAILED, code="provider_unavailable") from error


def _require_good(public_key: bytes, data: bytes, signature: bytes | SeipdError) -> None:
    """Pass on no signature of another key: a token may have lost its slot, a service its version.

    Raises:
        UnavailableError: ``provider_unavailable``.
    """
    if isinstance(signature, SeipdError) or not verify(public_key, data, signature):
        logger.error("the key provider signed with another key")
        raise UnavailableError(_PROVIDER_FAILED, code="provider_unavailable")


def _ends(
    caller: Caller, wanted: Sequence[Wanted], answers: Sequence[bytes | SeipdError]
) -> Iterator[tuple[Asked, SeipdError | None]]:
    """Say how a call ended: once for all messages of one key that ended the same way."""
    alike: dict[tuple[str, str, str], tuple[list[tuple[str, int]], SeipdError | None]] = {}
    for one, answer in zip(wanted, answers, strict=True):
        refusal = answer if isinstance(answer, SeipdError) else None
        code = refusal.code if refusal is not None else ""
        written, _ = alike.setdefault((one.scope, one.key_id, code), ([], refusal))
        written.append(one.written())
    for (scope, key_id, _), (((digest, size_bytes), *more), refusal) in alike.items():
        asked = Asked(
            call="sign",
            caller=caller.name,
            scope=scope,
            key_id=key_id,
            digest=digest,
            size_bytes=size_bytes,
            more=more,
        )
        yield asked, refusal


def _not_ended() -> SeipdError:
    return UnavailableError("it did not end", code="not_ended")
