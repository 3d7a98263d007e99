"""The mesh's feeds as this server witnesses them: what is remembered of a feed is its copy here.

One memory serves the settling of feeds and the witness conversation: the copy of a feed on this
disk only grows, durably, under checkpoints of its author. Nothing is co-signed that is not held
whole: whoever could have entries signed that nobody has seen could show them a week later, settled
before everybody else's. A checkpoint that is ahead of the copy waits a moment for gossip.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from services.base.ledger.checkpoint import parse_checkpoint
from services.base.ledger.feed import feed_origin
from services.base.ledger.note import NoteVerifier, parse_note
from services.base.ledger.witness import Held, SignedCheckpoint, StaleSizeError, Witness, held_of
from services.base.ledger.witnesskey import WitnessKey
from services.base.storage.files import read_file, write_atomic
from services.kernel.errors import (
    CorruptError,
    InputError,
    NotFoundError,
    RejectedError,
    SeipdError,
    UnavailableError,
)
from services.kernel.ids import ServerId, parse_decimal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.holding import Holding
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock
    from services.runtime.tasks import TaskOwner

    Contradict = Callable[[ServerId, int, bytes], Awaitable[bool]]

logger = logging.getLogger(__name__)

TIME_FILE: Final = "witness-time"

MAX_WAITING: Final = 32
MAX_COMPARING: Final = 8
_PAUSE_S: Final = 0.05


def open_witness_key(folder: Path, key: SigningKey, clock: Clock) -> WitnessKey:
    """Return what co-signs in this server's name, going on from the times it has signed.

    Raises:
        CorruptError: the file with the time is damaged.
        StorageError: the disk refused.
    """
    path = folder / TIME_FILE
    try:
        kept_s = parse_decimal(read_file(path, 32).decode("ascii").removesuffix("\n"))
    except NotFoundError:
        kept_s = 0
    except (InputError, UnicodeDecodeError) as error:
        raise CorruptError(
            f"ledger/{TIME_FILE} holds no time",
            path=f"ledger/{TIME_FILE}",
            mend="remove it, once the clock is right",
        ) from error

    def keep(time_s: int) -> None:
        write_atomic(path, b"%d\n" % time_s)

    return WitnessKey(key=key, clock=clock, kept_s=kept_s, keep=keep)


def witness_of(
    holding: Holding, key: WitnessKey, *, contradict: Contradict, tasks: TaskOwner
) -> Witness:
    """Return this server as a witness of the mesh's feeds."""
    feeds = WitnessedFeeds(holding=holding, contradict=contradict, tasks=tasks)
    name = f"seipd/{holding.fold.mesh_id}/{holding.server_id}"
    return Witness(logs=feeds, key=key, name=name)


class WitnessedFeeds:
    """The feeds of the servers in the roster of which all counts."""

    def __init__(
        self,
        *,
        holding: Holding,
        contradict: Contradict,
        tasks: TaskOwner,
        arrival_s: float = 3.0,
    ) -> None:
        self._holding = holding
        self._contradict = contradict
        self._tasks = tasks
        self._arrival_s = arrival_s
        self._waiting = 0
        self._comparing = 0

    def find(self, origin: str) -> WitnessedFeed | None:
        """Return the feed with this origin line."""
        _, _, rest = origin.removeprefix("seipd/").partition("/")
        certificate = self._holding.fold.charter.server(ServerId(rest.partition("/")[0]))
        if certificate is None or self._origin(certificate) != origin:
            return None
        if self._holding.limit_of(certificate.server_id) is not None:
            return None
        return WitnessedFeed(self, self._holding, certificate, origin)

    def origins(self) -> Iterator[str]:
        """Return the origin lines of all servers of the roster."""
        return map(self._origin, self._holding.fold.charter.servers().values())

    async def arrive(self, feed: WitnessedFeed, size: int) -> None:
        """Wait until the copy of a feed has come so far.

        Raises:
            UnavailableError: ``not_held``: it did not; or too many wait.
        """
        if self._waiting >= MAX_WAITING:
            raise UnavailableError("too many checkpoints wait for entries", mend="try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._arrival_s):
                while held_of(feed).size < size:  # noqa: ASYNC110 (a copy tells nobody that it grew)
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise UnavailableError(
                f"the entries up to {size} have not come here yet",
                code="not_held",
                mend="try again",
            ) from None
        finally:
            self._waiting -= 1

    def compare(self, server_id: ServerId, epoch: int, note: bytes) -> None:
        """Look whether a checkpoint is of another branch than the copy: its author lied then."""
        if self._comparing < MAX_COMPARING:
            self._comparing += 1
            self._tasks.spawn(self._compare(server_id, epoch, note), name="ledger-compare")

    async def _compare(self, server_id: ServerId, epoch: int, note: bytes) -> None:
        try:
            await self._contradict(server_id, epoch, note)
        except SeipdError as error:
            # Of more than is held here, as a rule: gossip compares it with who has it.
            logger.debug("a checkpoint of %s was not compared: %s", server_id, error)
        finally:
            self._comparing -= 1

    def _origin(self, certificate: ServerCertificate) -> str:
        mesh_id = self._holding.fold.mesh_id
        return feed_origin(mesh_id, certificate.server_id, certificate.epoch)


class WitnessedFeed:
    """One of them."""

    def __init__(
        self, feeds: WitnessedFeeds, holding: Holding, certificate: ServerCertificate, origin: str
    ) -> None:
        self._feeds = feeds
        self._holding = holding
        self._server_id = certificate.server_id
        self._epoch = certificate.epoch
        self.verifier = NoteVerifier(name=origin, public_key=certificate.key)

    def newest(self) -> SignedCheckpoint | None:
        """Return the newest checkpoint whose entries are all held."""
        log = self._holding.shelf.get(self._server_id, self._epoch)
        note = None if log is None else log.checkpoint
        if note is None:
            return None
        return SignedCheckpoint(checkpoint=parse_checkpoint(parse_note(note).text), note=note)

    @contextlib.asynccontextmanager
    async def take(self, signed: SignedCheckpoint, before: Held) -> AsyncIterator[None]:
        """See ``WitnessedLog``; the copy grows by gossip alone.

        Raises:
            StaleSizeError: the copy has grown beyond the checkpoint.
            RejectedError: ``proof_invalid``: the copy is of another branch.
            NotFoundError: ``unknown_log``: not all of the feed counts any more.
            UnavailableError: the entries have not come here.
        """
        if signed.held != before:
            await self._feeds.arrive(self, signed.checkpoint.size)
        async with self._holding.lock(self._server_id):
            if self._holding.limit_of(self._server_id) is not None:
                raise NotFoundError("unknown log", code="unknown_log")
            held = held_of(self)
            if held.size != signed.checkpoint.size:
                raise StaleSizeError(held.size)
            if held != signed.held:
                self.suspect(signed)
                raise RejectedError("consistency proof: held is another", code="proof_invalid")
            yield

    def suspect(self, signed: SignedCheckpoint) -> None:
        """See ``WitnessedLog``."""
        self._feeds.compare(self._server_id, self._epoch, signed.note)
