"""Sets, fetches and hands out secrets for servers; whoever needs one asks ``get``.

A server of tier 1 that sees in the ledger that there is a secret asks the one that set it, then the
others of tier 1, until one gives it. Who is asked looks up the tier of who asks, in the ledger as
it is at that moment: who was demoted gets nothing any more, and keeps what it has without being
able to use it by this program. What it knew it knows: set another value then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from services.authority.serversecrets.messages import (
    REMOVE_KIND,
    SALT_BYTES,
    SET_KIND,
    Meant,
    make_secret,
    open_secret,
    parse_name,
    seal_secret,
    set_body,
)
from services.authority.serversecrets.view import VIEW, meant_by, names, row_of
from services.authority.trust.tiers import PROOF_VIEW, TIER_VIEW, Right, may
from services.kernel.budget import Budget
from services.kernel.errors import (
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    SeipdError,
    UnavailableError,
)
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    import random  # noqa: TID251 (handed in)

    from services.authority.ports import Json, Ledger
    from services.authority.serversecrets.messages import Secret
    from services.authority.serversecrets.store import SecretStore
    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.author import Author
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId

logger = logging.getLogger(__name__)

RETRY_S: Final = 2.0
MAX_RETRY_S: Final = 60.0
ASKED_AT_ONCE: Final = 5
"""So many are asked for one secret before a pause."""
BURST: Final = 128
REFILL_S: Final = 2.0
"""A server may ask for all secrets twice at once, and then once in so long."""


class Wire(Protocol):
    """The way to the other servers."""

    async def ask(self, server_id: ServerId, meant: Meant) -> bytes:
        """Ask a server for a secret; return it as it was sealed to this server.

        Raises:
            SeipdError: it can't be reached, or what it refuses with.
        """


class Journal(Protocol):
    """The audit of what was handed out, and what was not."""

    async def write(self, entry: Json) -> None:
        """Keep an entry; trouble with the disk is told in the log."""

    async def newest(self, limit: int) -> list[Json]:
        """Return the newest entries, oldest first."""


class SecretsService:
    """See the module."""

    name: ClassVar[str] = "secrets"

    def __init__(
        self,
        *,
        ledger: Ledger,
        author: Author,
        key: SigningKey,
        store: SecretStore,
        wire: Wire,
        journal: Journal,
        rng: random.Random,
        clock: Clock,
        retry_s: float = RETRY_S,
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._key = key
        self._store = store
        self._wire = wire
        self._journal = journal
        self._rng = rng
        self._clock = clock
        self._budgets: dict[ServerId, Budget] = {}
        self._retry_s = retry_s
        self._held: dict[str, Secret] = {}
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._trouble = ""
        self._tasks = TaskOwner("secrets")
        self._is_subscribed = False

    async def start(self) -> None:
        """Read what is here, and begin to ask for what is not."""
        if not self._is_subscribed:
            views = [VIEW, TIER_VIEW, PROOF_VIEW, "roster"]
            self._ledger.subscribe(views, lambda _: self._changed.set())
        self._is_subscribed = True
        self._changed.set()
        self._tasks.spawn(self._keep_up(), name="secrets-keep")

    async def stop(self) -> None:
        """Ask no more; may be called twice."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say how many secrets there are, and which are not here though they should be."""
        missing = sorted(one.name for one in self._missing()) if self._may(self._own) else []
        detail = f"{len(names(self._ledger.state))} secrets"
        if missing:
            detail += f"; not here yet: {', '.join(missing)}"
            detail += f" ({self._trouble})" if self._trouble else ""
        return Health(state=HealthState.OK, detail=detail)

    def get(self, name: str) -> Secret:
        """Return the newest version of a secret, for use on this server.

        Raises:
            NotFoundError: ``no_secret``: nobody set one of that name.
            ForbiddenError: ``secret_not_allowed``: this server is not in tier 1 (any more).
            UnavailableError: ``secret_not_here``: it was not handed out to this server yet.
        """
        meant = self._meant(name)
        self._require_right(self._own)
        held = self._held.get(name)
        if held is None or held.meant != meant:
            raise UnavailableError(
                f"version {meant.version} of {name} is not here yet", code="secret_not_here"
            )
        return held

    def shown(self) -> list[Json]:
        """Return what is public of every secret, and whether it is here."""
        rows = [row for name in names(self._ledger.state) if (row := self._row(name)) is not None]
        return [
            {
                **{key: row[key] for key in ("name", "version", "by", "at_ms", "record")},
                "here": self._is_here(meant_by(row)),
            }
            for row in rows
        ]

    async def set(self, name: str, value: bytes) -> Json:
        """Set a secret, or another value of one; the servers of tier 1 fetch it.

        Raises:
            InputError: ``bad_secret_name``; ``empty_secret``.
            TooLargeError: over 8 KiB.
            ForbiddenError: ``secret_not_allowed``: this server is not in tier 1.
            RejectedError: ``rejected_stale``; ``too_many``.
            StorageError: the disk refused.
        """
        self._require_right(self._own)
        async with self._turn:
            row = self._row(parse_name(name))
            secret = make_secret(
                self._ledger.mesh_id,
                name=name,
                version=(row["version"] if row is not None else 0) + 1,
                value=value,
                salt=secrets.token_bytes(SALT_BYTES),
            )
            # Kept first: once it is in the ledger the others will ask for it.
            await asyncio.to_thread(self._store.put, secret)
            try:
                await self._submit(SET_KIND, set_body(secret.meant))
            except SeipdError:
                await self._sweep()
                raise
            self._held[name] = secret
            await self._sweep()
        return {"name": name, "version": secret.meant.version}

    async def remove(self, name: str) -> Json:
        """Remove a secret everywhere.

        Raises:
            NotFoundError: ``no_secret``.
            ForbiddenError: ``secret_not_allowed``: this server is not in tier 1.
            RejectedError: ``rejected_stale``.
        """
        self._require_right(self._own)
        async with self._turn:
            meant = self._meant(parse_name(name))
            await self._submit(REMOVE_KIND, {"name": name, "version": meant.version})
            await self._sweep()
        return {"name": name, "version": meant.version}

    async def hand_out(self, asker: ServerId, meant: Meant) -> bytes:
        """Return a secret sealed to a server that asks for it.

        Raises:
            ForbiddenError: ``secret_not_allowed``: it, or this server, is not in tier 1.
            NotFoundError: ``no_secret``: this is not the newest version of anything.
            UnavailableError: ``secret_not_here``.
            RateLimitedError: it asks too often.
        """
        self._spend(asker)
        try:
            sealed = self._sealed_for(asker, meant)
        except SeipdError as error:
            await self._note(asker, meant, error.code)
            raise
        await self._note(asker, meant, "granted")
        return sealed

    def _spend(self, asker: ServerId) -> None:
        """Charge a server for asking: it must not push others out of the audit."""
        now_s, servers = self._clock.monotonic_s(), self._ledger.charter.servers()
        self._budgets = {one: left for one, left in self._budgets.items() if one in servers}
        if asker not in self._budgets:
            self._budgets[asker] = Budget(rate_per_s=1 / REFILL_S, burst=BURST, now_s=now_s)
        if not self._budgets[asker].spend(1, now_s):
            raise RateLimitedError("asked for secrets too often", retry_after_s=int(REFILL_S))

    async def audit(self, limit: int) -> list[Json]:
        """Return who asked this server for which secret, oldest first."""
        return await self._journal.newest(limit)

    def _sealed_for(self, asker: ServerId, meant: Meant) -> bytes:
        self._require_right(asker)
        if self._meant(meant.name) != meant:
            raise NotFoundError(f"{meant.name} has no such version now", code="no_secret")
        key = self._ledger.charter.key_of(asker)
        if key is None:
            raise ForbiddenError(f"{asker} is no server here", code="secret_not_allowed")
        return seal_secret(self._ledger.mesh_id, self.get(meant.name), key)

    async def _note(self, asker: ServerId, meant: Meant, outcome: str) -> None:
        logger.info(
            "%s asks for secret %s: %s", asker, meant.name, outcome, extra={"code": outcome}
        )
        entry = {
            "server_id": asker,
            "secret": meant.name,
            "version": meant.version,
            "outcome": outcome,
        }
        await self._journal.write(entry)

    async def _submit(self, kind: str, body: Json) -> None:
        await self._ledger.name_roster()
        await self._ledger.submit([self._author.record(kind, body)])

    async def _keep_up(self) -> None:
        pause_s = self._retry_s
        while True:
            timeout_s = None
            try:
                if await self._catch_up():
                    pause_s = self._retry_s
                else:
                    timeout_s = pause_s * self._rng.uniform(0.5, 1.0)
                    pause_s = min(2 * pause_s, MAX_RETRY_S)
            except SeipdError as error:
                self._trouble, timeout_s = str(error), pause_s
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
            pause_s = self._retry_s

    async def _catch_up(self) -> bool:
        """Forget what counts no more, fetch what is missing; say whether all is here."""
        self._changed.clear()
        async with self._turn:
            await self._sweep()
            for meant in self._missing():
                found = await asyncio.to_thread(self._store.get, meant)
                if found is not None:
                    self._held[meant.name] = found
        if not self._may(self._own):
            return True
        for meant in self._missing():
            await self._fetch(meant)
        return not self._missing()

    async def _fetch(self, meant: Meant) -> None:
        for giver in self._givers(meant.name):
            try:
                sealed = await self._wire.ask(giver, meant)
                secret = open_secret(
                    self._ledger.mesh_id,
                    meant,
                    sealed,
                    seed=self._key.seed,
                    identity_key=self._key.public_key,
                )
            except SeipdError as error:
                self._trouble = f"{giver}: {error}"
                logger.info("%s does not give %s: %s", giver, meant.name, error)
                continue
            async with self._turn:
                if self._is_newest(meant):
                    await asyncio.to_thread(self._store.put, secret)
                    self._held[meant.name] = secret
            self._trouble = ""
            logger.info("secret %s, version %d, is here", meant.name, meant.version)
            return

    def _givers(self, name: str) -> list[ServerId]:
        row, charter = self._row(name), self._ledger.charter
        others = [one for one in charter.servers() if one != self._own and self._may(one)]
        self._rng.shuffle(others)
        # Who set it has it; the others may not have got it yet.
        others.sort(key=lambda one: row is None or one != row["by"])
        return others[:ASKED_AT_ONCE]

    async def _sweep(self) -> None:
        """Forget, here and on the disk, what the ledger names no more."""
        wanted = {meant.name: meant for meant in self._newest()}
        self._held = {
            name: one for name, one in self._held.items() if wanted.get(name) == one.meant
        }
        await asyncio.to_thread(self._store.keep_only, list(wanted.values()))

    def _newest(self) -> list[Meant]:
        found = (self._row(name) for name in names(self._ledger.state))
        return [meant_by(row) for row in found if row is not None]

    def _missing(self) -> list[Meant]:
        return [one for one in self._newest() if not self._is_here(one)]

    def _is_here(self, meant: Meant) -> bool:
        held = self._held.get(meant.name)
        return held is not None and held.meant == meant

    def _is_newest(self, meant: Meant) -> bool:
        row = self._row(meant.name)
        return row is not None and meant_by(row) == meant

    def _row(self, name: str) -> Json | None:
        return row_of(self._ledger.state, name)

    def _meant(self, name: str) -> Meant:
        row = self._row(name)
        if row is None:
            raise NotFoundError(f"there is no secret {name[:64]!r}", code="no_secret")
        return meant_by(row)

    def _require_right(self, server_id: ServerId) -> None:
        if not self._may(server_id):
            raise ForbiddenError(
                f"{server_id} is not in tier 1, which secrets are for",
                code="secret_not_allowed",
                mend=f"see why: seipd trust peer {server_id}",
            )

    def _may(self, server_id: ServerId) -> bool:
        charter = self._ledger.charter
        roster = charter.at(charter.number)
        return may(self._ledger.state, roster, server_id, Right.GET_SECRETS)

    @property
    def _own(self) -> ServerId:
        return self._ledger.server_id
