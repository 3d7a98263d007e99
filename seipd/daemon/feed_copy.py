"""A copy of a feed in this server's ledger, as a long catching up makes it grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.feed import feed_verifier
from services.base.ledger.merkle import EMPTY_ROOT
from services.kernel.errors import NotFoundError
from services.kernel.ids import ServerId

if TYPE_CHECKING:
    from services.base.ledger.service import LedgerService
    from services.mesh.bulk.effects import Chunk


class LedgerCopy:
    """Hands chunks to the ledger."""

    def __init__(self, ledger: LedgerService, server_id: str, epoch: int) -> None:
        """Look the feed up.

        Raises:
            NotFoundError: the roster knows no such feed.
        """
        certificate = ledger.charter.last_certificate(ServerId(server_id))
        if certificate is None or certificate.epoch != epoch:
            raise NotFoundError(f"{server_id} has no feed of epoch {epoch} in the roster")
        self.verifier = feed_verifier(ledger.mesh_id, certificate)
        self._ledger = ledger
        self._server_id = certificate.server_id
        self._epoch = epoch

    def held(self) -> tuple[int, bytes]:
        """Return how many entries are held and the root over them."""
        try:
            log = self._ledger.log(self._server_id)
        except NotFoundError:
            return 0, EMPTY_ROOT
        return (log.size, log.root) if log.epoch == self._epoch else (0, EMPTY_ROOT)

    async def store(self, chunk: Chunk) -> None:
        """Check, store and fold the entries of a chunk.

        Raises:
            SeipdError: see ``LedgerService.ingest``.
        """
        await self._ledger.ingest(
            self._server_id,
            self._epoch,
            chunk.start,
            list(chunk.entries),
            chunk.checkpoint,
            proof=chunk.proof,
        )
