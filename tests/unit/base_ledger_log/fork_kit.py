"""A feed in memory whose author may tell two stories."""

from __future__ import annotations

from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint
from services.base.ledger.feed import feed_origin
from services.base.ledger.merkle import consistency_proof, leaf_hashes, range_hash, root_of_row
from services.kernel.certificates import ServerCertificate
from services.kernel.ids import MeshId, server_id_of

MESH = MeshId("ab" * 32)
KEY = SigningKey(b"e" * 32)


def certificate_of(key: SigningKey = KEY, *, epoch: int = 1) -> ServerCertificate:
    return ServerCertificate(
        key=key.public_key,
        wireguard_key=b"w" * 32,
        tls_key_hash=bytes(32),
        region="eu-central",
        backbone="172.16.0.10",
        slices=("10.64.0.0/20",),
        epoch=epoch,
    )


class Branch:
    """One story: entries, and checkpoints signed at any size."""

    def __init__(self, entries, *, key: SigningKey = KEY, mesh_id=MESH, epoch: int = 1) -> None:
        self.hashes = leaf_hashes(entries)
        self.key = key
        self.origin = feed_origin(mesh_id, server_id_of(key.public_key), epoch)

    @property
    def size(self) -> int:
        return len(self.hashes)

    @property
    def checkpoint(self) -> bytes | None:
        return self.signed() if self.hashes else None

    def root_at(self, size: int) -> bytes | None:
        return range_hash(0, size, self._node) if 0 < size <= self.size else None

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        return consistency_proof(old, new, self._node)

    def signed(self, size: int | None = None, *, extensions: tuple[str, ...] = ()) -> bytes:
        size = self.size if size is None else size
        checkpoint = Checkpoint(
            origin=self.origin,
            size=size,
            root=root_of_row(self.hashes[:size]),
            extensions=extensions,
        )
        return sign_checkpoint(checkpoint, signer=self.key)

    def _node(self, level: int, index: int) -> bytes:
        return root_of_row(self.hashes[index << level : (index + 1) << level])


def forked(shared: int, one: int, other: int, **options) -> tuple[Branch, Branch]:
    """Return two branches with a common beginning and these many entries of their own."""
    common = [b"common %d" % index for index in range(shared)]
    return (
        Branch([*common, *(b"one %d" % index for index in range(one))], **options),
        Branch([*common, *(b"other %d" % index for index in range(other))], **options),
    )
