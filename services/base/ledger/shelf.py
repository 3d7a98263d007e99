"""The feeds on this server's disk: its own, and copies of the others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.base.ledger.copies import FeedLog, open_feed
from services.base.ledger.heads import FeedHeads
from services.base.storage.files import fsync_dir
from services.kernel.errors import CorruptError
from services.kernel.ids import ServerId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.limits import Prefix
    from services.base.ledger.roster import Charter
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import MeshId


class Shelf:
    """Opens logs as the roster names them, and puts wrong ones aside."""

    def __init__(
        self,
        folder: Path,
        *,
        server_id: ServerId,
        key: SigningKey,
        limit_of: Callable[[ServerId], Prefix | None],
    ) -> None:
        self._folder = folder
        self._server_id = server_id
        self._key = key
        self._logs: dict[ServerId, FeedLog] = {}
        self.aside_count = 0
        self.heads = FeedHeads(self._logs, limit_of)

    def __len__(self) -> int:
        return len(self._logs)

    def __iter__(self) -> Iterator[FeedLog]:
        return iter(tuple(self._logs.values()))

    def get(self, server_id: str, epoch: int | None = None) -> FeedLog | None:
        """Return the log of a feed, if it is held; of this epoch, where one is given."""
        log = self._logs.get(ServerId(server_id))
        return log if log is not None and epoch in {None, log.epoch} else None

    @property
    def own(self) -> FeedLog:
        """This server's own feed.

        Raises:
            CorruptError: the roster does not name this server.
        """
        own = self._logs.get(self._server_id)
        if own is None:
            raise CorruptError(
                "the roster does not name this server",
                path="identity/root_chain.json",
                mend="join the mesh again with a new invitation",
            )
        return own

    def open_named(self, charter: Charter) -> Mapping[ServerId, FeedLog]:
        """Open what is held of servers that are or were in the roster; return all that is open."""
        for certificate in charter.certificates().values():
            name = certificate.server_id
            held = name == self._server_id or (self._folder / "feeds" / name).exists()
            if held and name not in self._logs:
                self.open(certificate, charter.genesis.mesh_id)
        return self._logs

    def open(self, certificate: ServerCertificate, mesh_id: MeshId) -> FeedLog:
        """Open a feed, making it if it is not there.

        Raises:
            CorruptError: damaged; names the file.
        """
        log = open_feed(self._folder, mesh_id, certificate, self._server_id, self._key)
        self._logs[certificate.server_id] = log
        return log

    def put_aside(self, server_id: ServerId) -> None:
        """Close a copy of another's feed and keep it under a name where nobody reads it.

        Raises:
            StorageError: the disk refused.
        """
        self._logs.pop(server_id).close()
        self.aside_count += 1
        feeds = self._folder / "feeds"
        number = sum(1 for _ in feeds.glob(f"{server_id}.fork-*"))
        (feeds / server_id).rename(feeds / f"{server_id}.fork-{number + 1}")
        fsync_dir(feeds)

    def verify(self) -> list[dict[str, Any]]:
        """Re-derive every tile of every log; report each log's size, or what is wrong with it."""
        report: list[dict[str, Any]] = []
        for log in self:
            facts: dict[str, Any] = {"server_id": log.server_id, "path": log.path}
            try:
                facts |= {"good": True, "size": log.verify()}
            except CorruptError as error:
                facts |= {"good": False, "damaged": f"{log.path}/{error.path}", "why": str(error)}
            report.append(facts)
        return report

    def publish(self) -> None:
        """Bring every log's tiles and checkpoint file up to date."""
        for log in self:
            log.publish()

    def close(self) -> None:
        """Close every log; what is opened next is read anew."""
        for log in self:
            log.close()
        self._logs.clear()
