"""Certificates for this server and its endpoints: what is wanted, what is there, what is due.

Orders are durable jobs (``acme.order/1``), one for each name at a time. A CA that is away costs
nothing but the new certificate: what is installed is served on, and the job waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final

from services.base.jobs.attempt import JobKind
from services.base.jobs.model import Backoff, HopelessError, JobState
from services.edge.acme.advising import Advising
from services.edge.acme.challenges import endpoint_name, endpoint_named, server_names
from services.edge.acme.ordering import Ordering, Request
from services.edge.acme.renewal import HOUR_MS, standing_of
from services.edge.acme.requesting import check_request, public_key_of, request_of
from services.edge.acme.showing import document_of, warning_of
from services.kernel.errors import (
    ConflictError,
    CorruptError,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    SeipdError,
)
from services.kernel.ids import b64u_decode, b64u_encode
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.authority.ports import Ledger
    from services.base.jobs.attempt import Attempt
    from services.base.jobs.model import Job
    from services.base.jobs.service import JobsService
    from services.edge.acme.ca import Authority
    from services.edge.acme.certfiles import CertificateFiles, Installed
    from services.edge.acme.desk import ChallengeDesk
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

ORDER_KIND: Final = "acme.order/1"
ORDER_TIMEOUT_S: Final = 300.0
ORDER_BACKOFF: Final = Backoff(first_s=10.0, max_s=2 * 3600.0, jitter=0.3)
ORDER_ATTEMPTS: Final = 24
LOOK_INTERVAL_S: Final = 30.0
MIN_PAUSE_S: Final = 0.5
DEAD_REST_MS: Final = 12 * HOUR_MS
OTHER_KEY_REST_MS: Final = HOUR_MS


class AcmeService:
    """Keeps this server's certificates new; orders those of endpoints when they ask."""

    name: ClassVar[str] = "acme"

    def __init__(
        self,
        *,
        authority: Authority | None,
        desk: ChallengeDesk,
        files: CertificateFiles,
        jobs: JobsService,
        ledger: Ledger,
        clock: Clock,
        installed: Callable[[Installed], None],
        look_interval_s: float = LOOK_INTERVAL_S,
    ) -> None:
        """Make the service; nothing is started.

        Args:
            authority: the CA; None where this server has its certificates otherwise.
            desk: tells the mesh of challenges.
            files: the certificates on disk.
            jobs: the queue; the kind of job is registered here.
            ledger: who has which name.
            clock: the time.
            installed: called with each certificate of this server, at the start and when new.
            look_interval_s: how often it looks for what is due.
        """
        self._authority = authority
        self._desk = desk
        self._files = files
        self._jobs = jobs
        self._ledger = ledger
        self._clock = clock
        self._installed = installed
        self._look_interval_s = look_interval_s
        self._advising = (
            Advising(authority=authority, files=files, clock=clock) if authority else None
        )
        self._held: dict[str, Installed] = {}
        self._tasks = TaskOwner(self.name, on_crash=self._on_crash)
        self._state = HealthState.STOPPED
        self._trouble: dict[str, str] = {}
        jobs.register(
            JobKind(
                name=ORDER_KIND,
                run=self._order,
                timeout_s=ORDER_TIMEOUT_S,
                max_attempts=ORDER_ATTEMPTS,
                parallel=2,
                backoff=ORDER_BACKOFF,
            )
        )

    async def start(self) -> None:
        """Serve what is there, and begin to look for what is due; waits for no CA."""
        self._state = HealthState.OK
        if self._authority is None:
            return
        for name in self.own_names():
            await self._load(name)
        await self._desk.start()
        self._tasks.spawn(self._keep_looking(), name="acme-look")

    async def stop(self) -> None:
        """Look no more; orders go on after the next start."""
        self._state = HealthState.STOPPED
        await self._tasks.close()
        await self._desk.stop()

    def health(self) -> Health:
        """Say which certificates are missing, old, or in trouble."""
        if self._state is not HealthState.OK or self._authority is None:
            return Health(state=self._state, detail=self._trouble.get("", ""))
        notes = [*self._trouble.values(), *self._warnings()]
        if self._authority.notice:
            notes.append(self._authority.notice)
        if notes:
            return Health(state=HealthState.DEGRADED, detail="; ".join(notes))
        return Health(state=self._state, detail=f"{len(self._held)} certificates")

    def own_names(self) -> tuple[str, ...]:
        """Return the names that this server has certificates for."""
        certificate = self._ledger.charter.server(self._ledger.server_id)
        if certificate is None:
            return ()
        return tuple(self._full(one) for one in server_names(certificate))

    async def listed(self) -> list[dict[str, Any]]:
        """Return every certificate and order, as an operator sees them."""
        names = dict.fromkeys([*(self.own_names() if self._authority else ()), *self._names()])
        return [await self.shown(name) for name in names]

    async def shown(self, name: str) -> dict[str, Any]:
        """Return how the certificate of a name does.

        Raises:
            InputError: not a domain name.
        """
        held = await asyncio.to_thread(self._read, name)
        advice = await asyncio.to_thread(self._files.advice, name)
        job = await self._jobs.newest_of(ORDER_KIND, name)
        return document_of(name, held, advice, job, now_ms=self._clock.now_ms())

    async def issue_own(self, name: str) -> Job:
        """Order a certificate for a name of this server now, due or not.

        Raises:
            NotFoundError: not a name of this server.
            ConflictError: ``acme_off``.
            UnavailableError: the queue takes no more.
        """
        self._require_authority()
        if name not in self.own_names():
            raise NotFoundError(
                f"{name[:200]} is no name of this server",
                mend="seipd certs ls lists them; endpoints ask by seip cert issue",
            )
        return await self._enqueue(name, {}, is_now=True)

    async def issue_for(self, node_id: str, name: str, request_der: bytes) -> dict[str, Any]:
        """Order a certificate for an endpoint by its own request, or return the one it has.

        Raises:
            ForbiddenError: not the endpoint's own name, or another server carries it.
            InputError: ``bad_csr``.
            ConflictError: ``acme_off``.
            RateLimitedError: it had one for another key a moment ago.
            UnavailableError: the queue takes no more.
        """
        self._require_authority()
        own = endpoint_name(self._ledger.state, self._ledger.charter, node_id)
        if own is None or self._full(own.relative) != name:
            yours = f"yours is {self._full(own.relative)}" if own is not None else "you have none"
            raise ForbiddenError(f"{name[:200]} is not your name: {yours}", code="not_your_name")
        if own.server_id != self._ledger.server_id:
            raise ForbiddenError(
                f"ask the server that you are at, {own.server_id}", code="not_your_server"
            )
        public_key = check_request(request_der, name)
        held = await asyncio.to_thread(self._read, name)
        now_ms = self._clock.now_ms()
        if held is not None:
            is_due = standing_of(held.leaf, self._files.advice(name), now_ms).is_due
            if not is_due and held.leaf.public_key == public_key:
                return await self.shown(name)
            if not is_due:
                self._refuse_so_soon(held, now_ms)
        await self._enqueue(name, {"request": b64u_encode(request_der)})
        return await self.shown(name)

    async def shown_to(self, node_id: str, name: str) -> dict[str, Any]:
        """Return how an endpoint's certificate does; the CA is asked when to renew it, too.

        Raises:
            NotFoundError: not the endpoint's own name.
        """
        own = endpoint_name(self._ledger.state, self._ledger.charter, node_id)
        if own is None or self._full(own.relative) != name:
            raise NotFoundError(f"you have no certificate of {name}")
        held = await asyncio.to_thread(self._read, name)
        if held is not None and self._advising is not None:
            self._advising.soon(held, self._tasks)
        return await self.shown(name)

    async def look(self) -> None:
        """Order what is missing or due; ask the CA when it wants to see us again."""
        for name in self.own_names():
            try:
                await self._look_at(name)
            except SeipdError as error:
                self._trouble[name] = f"{name}: {error}"
            else:
                self._trouble.pop(name, None)

    async def _look_at(self, name: str) -> None:
        held, now_ms = self._held.get(name), self._clock.now_ms()
        if held is not None:
            standing = standing_of(held.leaf, self._files.advice(name), now_ms)
            if not standing.is_due:
                await self._advise(held)
                return
        job = await self._jobs.newest_of(ORDER_KIND, name)
        if job is not None and job.is_live:
            return
        # A rest after the last attempt, also over restarts: no loop burns the CA's limits.
        if job is not None and _rests(job, now_ms):
            raise SeipdError(f"given up for now: {job.error}", code=job.error_code)
        await self._enqueue(name, {})

    async def _advise(self, held: Installed) -> None:
        if self._advising is not None:
            await self._advising.refresh(held)

    async def _enqueue(self, name: str, payload: dict[str, Any], *, is_now: bool = False) -> Job:
        job = await self._jobs.enqueue(ORDER_KIND, {"name": name, **payload}, key=name)
        if is_now and job.state is JobState.READY and job.run_at_ms > self._clock.now_ms():
            with contextlib.suppress(ConflictError):
                job = await self._jobs.retry(job.id)
        return job

    async def _order(self, attempt: Attempt) -> dict[str, Any]:
        """Do one order; see ``jobs``."""
        authority, payload = self._authority, attempt.payload
        name, sent = payload.get("name"), payload.get("request")
        if authority is None or not isinstance(name, str):
            raise HopelessError("this server orders no certificates", code="acme_off")
        relative = name.removesuffix(f".{self._domain}")
        if isinstance(sent, str):
            held = await asyncio.to_thread(self._read, name)
            request = self._endpoint_request(name, relative, b64u_decode(sent), held)
            key_pem = None
        else:
            key_pem = await asyncio.to_thread(self._key_of, attempt, name)
            held = self._held.get(name)
            request = Request(
                name=name,
                relative=relative,
                request_der=request_of(key_pem, name),
                public_key=public_key_of(key_pem),
                replaces=held.leaf.renewal_id if held is not None else None,
            )
            if name not in self.own_names():
                raise HopelessError(f"{name} is no name of this server", code="not_your_name")
        ordering = Ordering(authority=authority, desk=self._desk, clock=self._clock)
        chain = await ordering.bring(attempt, request)
        await asyncio.to_thread(self._files.install, name, chain, key_pem)
        logger.info("a new certificate of %s is installed", name)
        if key_pem is not None:
            await self._load(name)
        return {"name": name}

    def _key_of(self, attempt: Attempt, name: str) -> bytes:
        """Return the key of the order that is taken up, or a new one for a new order."""
        held = self._files.pending_key(name) if attempt.progress.get("order") else None
        return held if held is not None else self._files.new_key(name)

    def _endpoint_request(
        self, name: str, relative: str, der: bytes, held: Installed | None
    ) -> Request:
        # Asked again: the endpoint may have left, or moved, since it put this in.
        own = endpoint_named(self._ledger.state, self._ledger.charter, relative)
        if own is None:
            raise HopelessError(f"there is no endpoint {name}", code="not_your_name")
        if own.server_id != self._ledger.server_id:
            raise HopelessError(f"{name} is at {own.server_id} now", code="not_your_server")
        return Request(
            name=name,
            relative=relative,
            request_der=der,
            public_key=check_request(der, name),
            replaces=held.leaf.renewal_id if held is not None else None,
        )

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        """Return how long nothing is due: of a short-lived certificate every second counts."""
        now_ms = self._clock.now_ms()
        dues = [standing_of(one.leaf, None, now_ms).due_ms for one in self._held.values()]
        until_s = [(due - now_ms) / 1000 for due in dues if due > now_ms]
        return min([self._look_interval_s, *(max(one, MIN_PAUSE_S) for one in until_s)])

    async def _load(self, name: str) -> None:
        """Take a certificate of this server from the disk, and serve it."""
        try:
            held = await asyncio.to_thread(self._files.load, name)
        except CorruptError as error:
            logger.error("%s; another one is ordered", error)  # noqa: TRY400 (no fault of ours)
            return
        if held is not None and held.key_pem is not None:
            self._held[name] = held
            self._installed(held)

    def _read(self, name: str) -> Installed | None:
        try:
            return self._files.load(name)
        except CorruptError:
            return None

    def _names(self) -> list[str]:
        return self._files.names()

    def _refuse_so_soon(self, held: Installed, now_ms: int) -> None:
        """Bound how often an endpoint comes with another key: the CA counts what it issues."""
        rest_ms = held.leaf.not_before_ms + OTHER_KEY_REST_MS - now_ms
        if rest_ms > 0:
            raise RateLimitedError(
                "there is a new certificate for another key of yours",
                retry_after_s=rest_ms // 1000 + 1,
            )

    def _warnings(self) -> list[str]:
        now_ms = self._clock.now_ms()
        found = [warning_of(one, self._held.get(one), now_ms=now_ms) for one in self.own_names()]
        return [one for one in found if one]

    def _full(self, relative: str) -> str:
        return f"{relative}.{self._domain}"

    @property
    def _domain(self) -> str:
        return self._ledger.charter.genesis.domain

    def _require_authority(self) -> None:
        if self._authority is None:
            raise ConflictError(
                "this server orders no certificates",
                code="acme_off",
                mend="start it with --tls acme",
            )

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, {"": f"{task} ended: {error!r}"}


def _rests(job: Job, now_ms: int) -> bool:
    return job.state is JobState.DEAD and 0 <= now_ms - job.changed_ms < DEAD_REST_MS
