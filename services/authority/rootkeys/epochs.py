"""The roster change by which a restored server's feed goes on, and what speaks against it. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from services.kernel.errors import ConflictError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from services.authority.ports import Json
    from services.base.ledger.changes import EpochEnd
    from services.base.ledger.heads import FeedHead
    from services.base.ledger.roster import Charter


def require_end(charter: Charter, end: EpochEnd, epoch: int, held: FeedHead | None) -> None:
    """Refuse an end that is not where the feed stands here.

    Raises:
        NotFoundError: ``unknown_server``: the roster does not name it (any more).
        ConflictError: ``epoch_over``: another one has begun meanwhile; ``another_story``.
        UnavailableError: ``feed_behind``: one of the two has to catch up first.
    """
    certificate = charter.server(end.server_id)
    if certificate is None:
        raise NotFoundError(f"{end.server_id} is no server of the roster", code="unknown_server")
    if certificate.epoch != epoch:
        raise ConflictError(
            f"the feed of {end.server_id} is in epoch {certificate.epoch}", code="epoch_over"
        )
    size, root = (held.size, held.root) if held is not None else (0, end.root)
    if size != end.size:
        raise UnavailableError(
            f"of the feed of {end.server_id} {size} entries are held here, there {end.size}",
            code="feed_behind",
            mend="try again once both hold the same",
        )
    if size and root != end.root:
        raise ConflictError(
            f"another story of the feed of {end.server_id} is held here", code="another_story"
        )


def next_epoch(charter: Charter, end: EpochEnd) -> Json:
    """Return the body of the ``roster.change`` that ends an epoch and begins the next.

    Raises:
        NotFoundError: ``unknown_server``.
    """
    known = charter.server(end.server_id)
    if known is None:
        raise NotFoundError(f"{end.server_id} is no server of the roster", code="unknown_server")
    return {
        "number": charter.number + 1,
        "prev": charter.head,
        "servers": [dataclasses.replace(known, epoch=known.epoch + 1).value()],
        "removed": [],
        "witnesses": list(charter.witnesses_at(charter.number)),
        "ended": [end.value()],
    }
