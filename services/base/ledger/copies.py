"""One feed on this server's disk: its own, or a copy of another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from services.base.ledger.feed import feed_verifier
from services.base.ledger.log import TileLog
from services.base.ledger.note import parse_note
from services.base.ledger.proof import TlogProof
from services.base.ledger.tiles import parse_tile_path
from services.kernel.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.merkle import Frontier
    from services.base.ledger.note import NoteVerifier
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import MeshId, ServerId


class FeedLog:
    """A tlog-tiles log whose leaves are entries of one server's feed."""

    def __init__(
        self,
        log: TileLog,
        *,
        server_id: ServerId,
        epoch: int,
        verifier: NoteVerifier,
        folder: Path,
        path: str,
        key: SigningKey | None,
    ) -> None:
        self._log = log
        self._verifier = verifier
        self._folder = folder
        self._key = key
        self.server_id = server_id
        self.epoch = epoch
        self.path = path

    @property
    def origin(self) -> str:
        """The origin line of its checkpoints."""
        return self._verifier.name

    @property
    def size(self) -> int:
        """How many entries are durable here; a copy on its way may have more than are signed."""
        return self._log.size

    @property
    def signed_size(self) -> int:
        """How many entries the newest signed checkpoint speaks of: what others may be told."""
        return self._log.signed_size

    @property
    def signed_root(self) -> bytes:
        """The root of which the newest signed checkpoint speaks."""
        return self._log.signed_root

    @property
    def frontier(self) -> Frontier:
        """The right edge of the tree over all entries; a copy."""
        return self._log.frontier

    @property
    def checkpoint(self) -> bytes | None:
        """The newest signed checkpoint."""
        return self._log.checkpoint

    @property
    def root(self) -> bytes:
        """The root of all entries."""
        return self._log.root

    @property
    def root_hex(self) -> str:
        """The root of which the newest signed checkpoint speaks, in hex."""
        return self._log.signed_root.hex()

    @property
    def vkey(self) -> str:
        """The verifier key of the feed (C2SP signed-note)."""
        return self._verifier.vkey

    def begin_epoch(self, mesh_id: MeshId, certificate: ServerCertificate) -> None:
        """Go on under the epoch of a newer certificate; what was signed before stays good."""
        self._verifier = feed_verifier(mesh_id, certificate)
        self.epoch = certificate.epoch
        self._log.rename(self._verifier)

    @property
    def signed_epoch(self) -> int:
        """The epoch of the newest signed checkpoint; that of the log where there is none."""
        if self.checkpoint is None:
            return self.epoch
        origin = parse_checkpoint(parse_note(self.checkpoint).text).origin
        return int(origin.rpartition("/")[2])

    def commit(self, entries: list[bytes]) -> None:
        """Append to this server's own feed under a new checkpoint; durable on return.

        Raises:
            StorageError: the disk refused; nothing may be appended any more.
        """
        if self._key is None:
            raise InputError("a copy has no key to sign with")
        size, root = self._log.root_after(entries)
        checkpoint = Checkpoint(origin=self.origin, size=size, root=root)
        self._log.append(entries, sign_checkpoint(checkpoint, signer=self._key))

    def extend(self, entries: Sequence[bytes], checkpoint: bytes) -> None:
        """Append another server's entries under its checkpoint; durable on return.

        Raises:
            WireError: the checkpoint does not sign exactly these entries.
            StorageError: the disk refused.
        """
        self._log.append(entries, checkpoint)

    def extend_verified(
        self, entries: Sequence[bytes], checkpoint: bytes, proof: Sequence[bytes]
    ) -> None:
        """Append a part of what another server's checkpoint signs; durable on return.

        Args:
            entries: what follows.
            checkpoint: it may speak of more than is there with these entries.
            proof: the consistency proof from the size with these entries to the checkpoint.

        Raises:
            WireError: the checkpoint is malformed, or of another feed.
            BadSignatureError: it is not well signed, or the feed with these entries is not the
                beginning of what it signs.
            StorageError: the disk refused.
        """
        self._log.extend_verified(entries, checkpoint, proof)

    def read(self, start: int, stop: int) -> list[bytes]:
        """Return entries as they are."""
        return self._log.read(start, stop)

    def root_at(self, size: int) -> bytes | None:
        """Return the root that the feed had at a size, or None where it is not held."""
        return self._log.root_at(size) if 0 < size <= self._log.size else None

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the feed at one size is a beginning of it at another."""
        return self._log.consistency_proof(old, new)

    def tlog_proof(self, index: int) -> bytes:
        """Return a C2SP tlog-proof of one entry under the newest checkpoint.

        Raises:
            NotFoundError: there is no such entry.
        """
        size, checkpoint = self._log.signed_size, self._log.checkpoint
        if checkpoint is None or index >= size:
            raise NotFoundError(f"the feed has {size} entries")
        hashes = tuple(self._log.inclusion_proof(index, size))
        (entry,) = self._log.read(index, index + 1)
        proof = TlogProof(index=index, hashes=hashes, checkpoint=checkpoint, extra=entry)
        return proof.encode()

    def published_checkpoint(self) -> bytes:
        """Return the checkpoint that the tiles on the disk answer for.

        Raises:
            NotFoundError: nothing was published yet.
        """
        try:
            return (self._folder / "checkpoint").read_bytes()
        except FileNotFoundError:
            raise NotFoundError("nothing is published yet") from None

    def hash_tile_path(self, text: str) -> Path:
        """Return the file of a hash tile.

        Raises:
            TileError: not a tile's path.
        """
        ref = parse_tile_path(f"tile/{text}")
        if ref.level is None:
            raise NotFoundError("entry bundles lie elsewhere")
        return self._folder / ref.path()

    def bundle_path(self, text: str) -> Path:
        """Return the file of an entry bundle.

        Raises:
            TileError: not a bundle's path.
        """
        return self._folder / parse_tile_path(f"tile/entries/{text}").path()

    def verify(self) -> int:
        """Re-derive every tile from the entries; return the size that was checked.

        Raises:
            CorruptError: names the tile.
        """
        from services.base.ledger.fsck import verify_log

        return verify_log(self._folder, self._verifier, self.origin).size

    def publish(self) -> None:
        """Bring tiles and checkpoint on the disk up to date."""
        self._log.publish()

    def close(self) -> None:
        """Close the files."""
        self._log.close()


def open_feed(
    folder: Path,
    mesh_id: MeshId,
    certificate: ServerCertificate,
    own_id: ServerId,
    key: SigningKey | None = None,
) -> FeedLog:
    """Open a server's feed below the ledger's folder, making it if it is not there.

    Raises:
        CorruptError: damaged; names the file.
    """
    server_id = certificate.server_id
    own = server_id == own_id
    path = "ledger/feed" if own else f"ledger/feeds/{server_id}"
    place = folder / "feed" if own else folder / "feeds" / server_id
    verifier = feed_verifier(mesh_id, certificate)
    log = TileLog.open(place, origin=verifier.name, verifier=verifier, create=True)
    return FeedLog(
        log,
        server_id=server_id,
        epoch=certificate.epoch,
        verifier=verifier,
        folder=place,
        path=path,
        key=key if own else None,
    )
