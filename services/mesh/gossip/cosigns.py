"""Cosignatures on their way to the authors of feeds, repeated until they have arrived. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.mesh.gossip.messages import Cosign

FIRST_REPEAT_S: Final = 0.5
MAX_REPEAT_S: Final = 30.0


@dataclass(slots=True, kw_only=True)
class _Waiting:
    message: Cosign
    due_s: float
    pause_s: float = FIRST_REPEAT_S


class CosignOutbox:
    """The newest cosignature for each author: one over more entries replaces one over fewer."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def put(self, author: str, message: Cosign, now_s: float) -> None:
        """Have a cosignature sent."""
        known = self._waiting.get(author)
        if known is None or (known.message.epoch, known.message.size) < (
            message.epoch,
            message.size,
        ):
            self._waiting[author] = _Waiting(message=message, due_s=now_s)

    def due(self, now_s: float) -> list[tuple[str, Cosign]]:
        """Return what is to be sent now, and to whom."""
        due = []
        for author, one in self._waiting.items():
            if now_s >= one.due_s:
                due.append((author, one.message))
                one.due_s = now_s + one.pause_s
                one.pause_s = min(one.pause_s * 2, MAX_REPEAT_S)
        return due

    def arrived(self, author: str, epoch: int, size: int) -> None:
        """Stop repeating what an author has."""
        known = self._waiting.get(author)
        if known is not None and (known.message.epoch, known.message.size) <= (epoch, size):
            del self._waiting[author]

    def keep_only(self, servers: Mapping[str, bytes]) -> None:
        """Forget the servers that are no longer in the roster."""
        for author in [name for name in self._waiting if name not in servers]:
            del self._waiting[author]
