"""What the fold has to know of the root key chain: who speaks as the root where. Pure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from services.base.ledger.changes import CHANGE_KINDS, change_number
from services.kernel.errors import InputError, RejectedError
from services.kernel.hlc import hlc_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.changes import Change
    from services.base.ledger.roster import Charter
    from services.base.ledger.standing import Checked, Item

logger = logging.getLogger(__name__)


def offer_changes(charter: Charter, entries: Sequence[Checked]) -> list[Change]:
    """Offer the roster changes among entries; return what came into effect by them."""
    records = (one.entry.record for one in entries if one.entry is not None)
    applied: list[Change] = []
    for record in sorted((one for one in records if one.kind in CHANGE_KINDS), key=change_number):
        try:
            applied += charter.offer(record)
        except (RejectedError, InputError) as error:
            logger.warning("roster change refused: %s", error, extra={"code": error.code})
    return applied


class RootWatch:
    """Notices when the chain is another than the one by which items were judged."""

    def __init__(self, charter: Charter) -> None:
        self._charter = charter
        self._chain = charter.chain
        self._rewound_count = charter.rewound_count

    def keys(self, item: Item) -> frozenset[bytes]:
        """Return the keys that are the root where an item stands.

        Its time is the one that decides about its place: what is settled after the end of a window
        does not count, whatever its stamp says.
        """
        time_ms = hlc_ms(item.hlc) if item.provisional else item.settled_ms
        number = item.roster_number
        return self._charter.chain.speaks(item.record, number=number, time_ms=time_ms)

    def still_judged(self, item: Item) -> bool:
        """Say whether the root has the same part in an item as when that was judged."""
        if self._charter.chain.of_key(item.record.actor) is None:
            return not item.by_root
        return item.by_root == (item.record.actor in self.keys(item))

    def has_moved(self) -> bool:
        """Say whether the chain is another than before; asked again it says no."""
        moved, self._chain = self._charter.chain is not self._chain, self._charter.chain
        return moved

    def reaches_behind(self, horizon_ms: int, *, began: bool) -> bool:
        """Say whether what was judged may have to be judged anew that can't be taken back.

        Args:
            horizon_ms: what was settled by then can't be; below 0 where nothing was.
            began: whether there is anything that can be.
        """
        if self._charter.rewound_count != self._rewound_count:
            return began or horizon_ms >= 0
        ends = (one.closes_ms for one in self._charter.chain.generations if not one.is_closed)
        return any(closes_ms is not None and closes_ms <= horizon_ms for closes_ms in ends)
