"""Where each feed stands at the settled point of a fold, or stood at a settled time. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.standing import FeedPoint

if TYPE_CHECKING:
    from services.base.ledger.fold import Fold
    from services.base.ledger.standing import Item
    from services.kernel.ids import ServerId


def settled_points(fold: Fold) -> tuple[dict[ServerId, FeedPoint], int]:
    """Return each feed's settled size and the newest settled time: what a state file covers."""
    settled = fold.settled_until()
    newest = settled[-1].settled_ms if settled else max(fold.horizon_ms, 0)
    points = {
        author: FeedPoint(
            size=feed.attested,
            roster_number=feed.roster_number_at(feed.attested),
            settled_hlc=feed.settled_hlc,
            settled_ms=feed.settled_ms,
        )
        for author, feed in fold.feeds.items()
        if feed.attested
    }
    return points, newest


def points_at(fold: Fold, time_ms: int) -> dict[ServerId, FeedPoint] | None:
    """Return where each feed stood at a settled time; None where that is not remembered."""
    if fold.horizon_ms > time_ms:
        return None
    newest: dict[ServerId, Item] = {item.author: item for item in fold.settled_until(time_ms)}
    points = {}
    for author, feed in fold.feeds.items():
        known = [one for one in feed.attests if one.settled_ms <= time_ms]
        if not known and len(feed.attests) == feed.attests.maxlen:
            return None
        if known:
            size = known[-1].size
            points[author] = FeedPoint(
                size=size,
                roster_number=feed.roster_number_at(size),
                settled_hlc=newest[author].hlc if author in newest else feed.trimmed_hlc,
                settled_ms=known[-1].settled_ms,
            )
    return points
