"""What a server says it holds, in DIGESTs of 46 feeds, and what another's DIGEST means. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.mesh.gossip.messages import MAX_FEEDS, Digest, FeedSize, raw_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.mesh.gossip.ports import FeedHead

MAX_A_ROUND: Final = 4


class DigestCursor:
    """Goes round all feeds of a large mesh, so many a round; a small one fits in one datagram."""

    def __init__(self) -> None:
        self._at = 0

    def next_round(self, servers: Iterable[str], heads: Mapping[str, FeedHead]) -> list[Digest]:
        """Return the DIGESTs of this round; a feed that is not held counts as empty."""
        names = sorted(servers)
        room = MAX_A_ROUND * MAX_FEEDS
        if len(names) > room:
            self._at %= len(names)
            turned = names[self._at :] + names[: self._at]
            self._at += room
            names = turned[:room]
        return [
            Digest(feeds=tuple(sizes_of(names[at : at + MAX_FEEDS], heads)), asks=True)
            for at in range(0, len(names), MAX_FEEDS)
        ]


def sizes_of(names: Iterable[str], heads: Mapping[str, FeedHead]) -> list[FeedSize]:
    """Return how much is held of each of these feeds."""
    sizes = []
    for name in names:
        head = heads.get(name)
        sizes.append(
            FeedSize(
                server=raw_id(name),
                epoch=head.epoch if head else 0,
                size=head.size if head else 0,
            )
        )
    return sizes


def is_ahead(head: FeedHead | None, epoch: int, size: int) -> bool:
    """Say whether what is held here goes beyond what somebody else holds."""
    return head is not None and (head.epoch, head.size) > (epoch, size)


def is_behind(head: FeedHead | None, epoch: int, size: int) -> bool:
    """Say whether somebody else holds more than is held here."""
    have = (head.epoch, head.size) if head else (0, 0)
    return size > 0 and (epoch, size) > have
