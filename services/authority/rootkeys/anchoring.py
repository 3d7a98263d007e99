"""Says in this server's feed what its signer's audit came to, and tells what all servers said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.authority.rootkeys.anchors import ANCHOR_KIND, anchored_of
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from services.authority.ports import Json, Ledger
    from services.authority.rootkeys.auditcopy import AuditMonth
    from services.base.ledger.author import Author


class AuditAnchors:
    """Reads and writes ``audit.anchor``; satisfies Anchors."""

    def __init__(self, *, ledger: Ledger, author: Author) -> None:
        self._ledger = ledger
        self._author = author

    def own(self) -> list[Json]:
        """Return what this server said of its signers, the newest last."""
        return anchored_of(self._ledger.state, self._ledger.server_id)

    def all(self) -> list[Json]:
        """Return what everybody said who is or was a server."""
        return [
            {"server_id": server_id, **said}
            for server_id in sorted(self._ledger.charter.certificates())
            for said in anchored_of(self._ledger.state, server_id)
        ]

    async def say(self, month: AuditMonth, *, size: int, root: bytes) -> None:
        """Anchor so many entries of a month.

        Raises:
            SeipdError: the ledger takes no writes now, or refuses it.
        """
        body = {
            "key": b64u_encode(month.verifier.public_key),
            "month": month.month,
            "root": root.hex(),
            "size": size,
        }
        await self._ledger.submit([self._author.record(ANCHOR_KIND, body)])
