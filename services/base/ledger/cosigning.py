"""Co-signing other servers' feeds as a witness, and telling of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from services.kernel.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.base.ledger.attest import Attestor
    from services.base.ledger.copies import FeedLog
    from services.base.ledger.holding import Holding
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId

    Told = Callable[[ServerId, int, int, bytes], None]

logger = logging.getLogger(__name__)

COSIGN_AGAIN_S: Final = 5.0


class Cosigner:
    """Signs what is held whole of a feed, and signs again what its author may have lost."""

    def __init__(self, *, holding: Holding, attestor: Attestor, clock: Clock, tell: Told) -> None:
        self._holding = holding
        self._attestor = attestor
        self._clock = clock
        self._tell = tell
        self._next_s = 0.0

    def cosign(self, log: FeedLog) -> None:
        """Sign what is held of a feed, unless no more of it counts."""
        if log.size != log.signed_size:
            return
        if self._holding.limit_of(log.server_id) is not None:
            return
        try:
            line = self._attestor.cosign(log)
        except StorageError as error:
            logger.warning("nothing is co-signed: %s", error)
            return
        if line is not None:
            self._tell(log.server_id, log.epoch, log.size, line)

    def cosign_again(self) -> None:
        """Sign once more for authors that may have lost our word before they wrote it down."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_s:
            return
        self._next_s = now_s + COSIGN_AGAIN_S
        for log in self._holding.shelf:
            feed = self._holding.fold.feeds.get(log.server_id)
            if feed is not None and feed.unsettled and log.server_id != self._holding.server_id:
                self.cosign(log)
