"""One order from its beginning to the certificate, in steps that a restart may come between.

    {"order": URL, "directory": URL}   in the job's progress, as soon as the CA took the order

An order whose URL is known is taken up where it stands: pending, ready, processing or valid. One
that the CA gave up is forgotten, as is one of a CA that is no longer ours, and another begins.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.base.jobs.model import HopelessError, TryLaterError
from services.edge.acme.checking import BadCertificateError, check_chain
from services.edge.acme.failures import (
    PERSON_WAIT_S,
    AccountGoneError,
    CaAnswerError,
    NeedsPersonError,
    OrderInvalidError,
    error_of_problem,
    retry_after_s,
)
from services.kernel.errors import RejectedError, SeipdError
from services.kernel.ids import b64u_encode
from services.mesh.facts.payloads import Challenge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.jobs.attempt import Attempt
    from services.edge.acme.ca import Authority, Talk
    from services.edge.acme.conversation import Authorization, Order, Problem
    from services.edge.acme.desk import ChallengeDesk
    from services.kernel.clock import Clock

VALIDATED_WITHIN_S: Final = 90.0
ISSUED_WITHIN_S: Final = 60.0
NEW_ACCOUNT_S: Final = 1.0
POLL_S: Final = 1.0
MAX_POLL_S: Final = 30.0

Look = Callable[[], Awaitable[tuple[bool, str | None]]]
"""Whether it is so by now, and the CA's ``Retry-After``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for: one name, by a request whose key is known."""

    name: str
    relative: str
    """The name below the mesh's domain."""
    request_der: bytes
    public_key: bytes
    replaces: str | None = None


class Ordering:
    """Orders certificates."""

    def __init__(self, *, authority: Authority, desk: ChallengeDesk, clock: Clock) -> None:
        self._authority = authority
        self._desk = desk
        self._clock = clock

    async def bring(self, attempt: Attempt, request: Request) -> bytes:
        """Return the chain, checked.

        Raises:
            SeipdError: why there is none yet; the code says which way to go on.
        """
        try:
            async with self._authority.talk() as talk:
                return await self._try(talk, attempt, request)
        except NeedsPersonError as error:
            raise TryLaterError(
                f"{error} — {error.mend}", after_s=PERSON_WAIT_S, code=error.code
            ) from error

    async def _try(self, talk: Talk, attempt: Attempt, request: Request) -> bytes:
        try:
            return await self._bring(talk, attempt, request)
        except AccountGoneError as error:
            if attempt.progress.get("has_new_account"):
                # A second account fared no better: it is not for us to make a third.
                raise HopelessError(str(error), code=error.code) from error
            await attempt.note({"has_new_account": True})
            await self._authority.forget_account(talk)
            raise TryLaterError(str(error), after_s=NEW_ACCOUNT_S, code=error.code) from error
        except (OrderInvalidError, BadCertificateError):
            # Nothing more comes of this order; what it was is not to be asked again.
            await attempt.note({})
            raise

    async def _bring(self, talk: Talk, attempt: Attempt, request: Request) -> bytes:
        order = await self._order(talk, attempt, request)
        try:
            if order.status == "pending":
                await self._prove(talk, attempt.id, order, request)
                order = await talk.call(lambda ca: ca.look(order.url))
            if order.status in ("pending", "ready"):
                order = await self._finalize(talk, order, request)
            order = await self._issued(talk, order)
        finally:
            self._desk.close(attempt.id)
        chain = (await talk.call(lambda ca: ca.download(order))).encode("utf-8")
        check_chain(
            chain,
            name=request.name,
            public_key=request.public_key,
            now_ms=self._clock.now_ms(),
        )
        return chain

    async def _order(self, talk: Talk, attempt: Attempt, request: Request) -> Order:
        known, directory = attempt.progress.get("order"), self._authority.directory
        # The order of an attempt by another version names no directory.
        is_here = attempt.progress.get("directory", directory) == directory
        if isinstance(known, str) and is_here:
            with contextlib.suppress(RejectedError):
                order = await talk.call(lambda ca: ca.look(known))
                if order.status != "invalid" and order.names == (request.name,):
                    return order
        order = await self._begun(talk, request)
        if order.names != (request.name,):
            raise CaAnswerError("the CA took an order for other names")
        await attempt.note({**attempt.progress, "order": order.url, "directory": directory})
        return order

    async def _begun(self, talk: Talk, request: Request) -> Order:
        """Begin an order, as a renewal where the CA agrees that it is one."""
        if request.replaces is not None and await talk.call(lambda ca: ca.tells_renewal):
            # The certificate may be another CA's or another account's, or have been replaced by an
            # order that came to nothing: a CA refuses that by any code (RFC 9773, 5).
            with contextlib.suppress(RejectedError):
                return await talk.call(lambda ca: ca.order((request.name,), request.replaces))
        return await talk.call(lambda ca: ca.order((request.name,)))

    async def _prove(self, talk: Talk, order_id: str, order: Order, request: Request) -> None:
        found = [
            await talk.call(lambda ca, url=url: ca.authorization(url))  # type: ignore[misc]
            for url in order.authorizations
        ]
        open_ones = [one for one in found if one.status == "pending"]
        if not open_ones:
            return
        for one in open_ones:
            if one.name != request.name:
                raise CaAnswerError("the CA wants to see another name")
        challenges = tuple(Challenge(name=request.relative, digest=one.digest) for one in open_ones)
        self._desk.open(order_id, challenges)
        texts = [b64u_encode(one.digest) for one in open_ones]
        await self._desk.wait({request.relative: texts})
        for one in open_ones:
            if one.challenge_status == "pending":
                await talk.call(lambda ca, one=one: ca.answer(one))  # type: ignore[misc]
        await self._validated(talk, order.authorizations)

    async def _validated(self, talk: Talk, urls: Sequence[str]) -> None:
        for url in urls:

            async def look(url: str = url) -> tuple[bool, str | None]:
                found = await talk.call(lambda ca: ca.authorization(url))
                if found.status not in ("pending", "valid", "processing"):
                    raise _invalid(found)
                return found.status == "valid", found.retry_after

            await self._until(look, VALIDATED_WITHIN_S, "the CA does not say what it saw")

    async def _finalize(self, talk: Talk, order: Order, request: Request) -> Order:
        latest = order

        async def ready() -> tuple[bool, str | None]:
            nonlocal latest
            if latest.status == "pending":
                latest = await talk.call(lambda ca: ca.look(order.url))
            if latest.status == "invalid":
                raise _refused(latest.error)
            return latest.status != "pending", latest.retry_after

        await self._until(ready, VALIDATED_WITHIN_S, "the CA does not take the proofs")
        if latest.status != "ready":
            return latest
        return await talk.call(lambda ca: ca.finalize(latest, request.request_der))

    async def _issued(self, talk: Talk, order: Order) -> Order:
        latest = order

        async def issued() -> tuple[bool, str | None]:
            nonlocal latest
            if latest.status not in ("valid", "invalid"):
                latest = await talk.call(lambda ca: ca.look(order.url))
            if latest.status == "invalid":
                raise _refused(latest.error)
            return latest.status == "valid" and bool(latest.certificate), latest.retry_after

        await self._until(issued, ISSUED_WITHIN_S, "the CA does not issue the certificate yet")
        return latest

    async def _until(
        self, look: Callable[[], Awaitable[tuple[bool, str | None]]], within_s: float, what: str
    ) -> None:
        """Look until it is so, as seldom as the CA asks for; the order stays open if it is not."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    is_so, header = await look()
                    if is_so:
                        return
                    wait_s = retry_after_s(header, now_ms=self._clock.now_ms(), default_s=POLL_S)
                    await asyncio.sleep(min(wait_s, MAX_POLL_S))
        except TimeoutError:
            raise TryLaterError(what, after_s=60.0, code="ca_slow") from None


def _invalid(authorization: Authorization) -> SeipdError:
    if authorization.error is None:
        return OrderInvalidError(f"the CA did not believe {authorization.name}")
    return _refused(authorization.error)


def _refused(problem: Problem | None) -> SeipdError:
    if problem is None:
        return OrderInvalidError("the CA gave the order up")
    error = error_of_problem(problem.type, problem.detail or problem.title)
    return OrderInvalidError(str(error), code=_code_of(error))


def _code_of(error: SeipdError) -> str:
    # Of an order, "unauthorized" is about the proof, not about the account.
    return "order_invalid" if isinstance(error, AccountGoneError) else error.code
