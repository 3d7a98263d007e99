"""Which server an endpoint should be at, and when it moves to another. Pure: time comes in.

The best server is the one of the lowest score, in milliseconds. An endpoint moves when its server
is silent, at once, or when it is slow for long and another is much nearer, once a minute at most:
two servers of about the same distance do not play ball with it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

ALPHA: Final = 0.3
SLOW_MS: Final = 200.0
BETTER: Final = 0.7
WORTH_MS: Final = 5.0
HOLD_MS: Final = 60_000
SILENT_MS: Final = 10_000
MOVES: Final = 5
MOVES_WITHIN_MS: Final = 600_000
"""After so many moves in so long the next ones are a minute apart."""
VAIN_MOVES: Final = 2
VAIN_PAUSES_MS: Final = (60_000, 120_000, 240_000, 480_000)
"""Who hears nothing at one server after another is in a network that takes no UDP out."""
SOON_MS: Final = 2_000
FRESH_MS: Final = 60_000
TEN_TENTHS: Final = 10.0


def score(latency_ms: float, load: float) -> float:
    """Return how good a server is, in ms; less is better.

    Args:
        latency_ms: the round trip to it.
        load: how busy its processors are, in tenths: 10 is wholly.
    """
    return latency_ms + 10 * min(max(load, 0.0), TEN_TENTHS)


def is_clearly_better(other: float, own: float) -> bool:
    """Say whether a score is so much better than another that it is worth a move."""
    return other <= BETTER * own and own - other >= WORTH_MS


@dataclass(slots=True, kw_only=True)
class _Seen:
    load: float = 0.0
    latency_ms: float | None = None
    at_ms: int = 0
    failed_ms: int | None = None

    def is_usable(self, now_ms: int) -> bool:
        """Say whether it answered in the last minute and did not refuse in it."""
        has_failed = self.failed_ms is not None and now_ms - self.failed_ms < HOLD_MS
        return now_ms - self.at_ms < FRESH_MS and not has_failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Go to this server, and why, as ``seip status`` tells it."""

    server_id: str
    why: str


class Chooser:
    """What is measured of the servers, and what follows."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._moved_ms: int | None = None
        self._lately_ms: deque[int] = deque(maxlen=MOVES)
        self._vain_count = 0

    def know(self, loads: dict[str, float]) -> None:
        """Choose among exactly these servers; each with its load, in tenths."""
        self._seen = {name: self._seen.get(name) or _Seen() for name in loads}
        for name, load in loads.items():
            self._seen[name].load = load

    def measured(self, server_id: str, latency_ms: float | None, *, now_ms: int) -> None:
        """Take a round trip; None: the server did not answer."""
        seen = self._seen.get(server_id)
        if seen is None:
            return
        if latency_ms is None:
            seen.latency_ms = None
            return
        before = seen.latency_ms
        seen.latency_ms = (
            latency_ms if before is None else ALPHA * latency_ms + (1 - ALPHA) * before
        )
        seen.at_ms = now_ms

    def latency_ms(self, server_id: str) -> float | None:
        """Return the moving average of a server's round trips."""
        seen = self._seen.get(server_id)
        return None if seen is None else seen.latency_ms

    def best(self, *, now_ms: int, but: Collection[str] = ()) -> str | None:
        """Return the server of the lowest score among those that answered in the last minute."""
        scores = [
            (score(seen.latency_ms, seen.load), name)
            for name, seen in self._seen.items()
            if name not in but and seen.latency_ms is not None and seen.is_usable(now_ms)
        ]
        return min(scores)[1] if scores else None

    def moved(self, *, now_ms: int, silent_ms: int = 0) -> None:
        """Note that the endpoint went to another server, or tried to.

        Args:
            now_ms: monotonic.
            silent_ms: for how long nothing came of the server before.
        """
        is_vain = self._heard_nothing(silent_ms, now_ms)
        self._vain_count = self._vain_count + 1 if is_vain else 0
        self._moved_ms = now_ms
        self._lately_ms.append(now_ms)

    def failed(self, server_id: str, *, now_ms: int) -> None:
        """Note that a server answered but did not take the endpoint; not again for a minute."""
        self._seen[server_id].failed_ms = now_ms
        self._vain_count = max(self._vain_count - 1, 0)

    def network_changed(self) -> None:
        """Take that this machine is in another network, which may let through what that did not."""
        self._vain_count = 0

    def _heard_nothing(self, silent_ms: int, now_ms: int) -> bool:
        """Say whether nothing came since the last move."""
        return self._moved_ms is not None and silent_ms >= now_ms - self._moved_ms - SOON_MS

    def _is_in_vain(self, silent_ms: int, now_ms: int) -> bool:
        """Say whether it is too soon for another move, since the last ones led nowhere.

        Their servers answer by TCP; so it is UDP that this network does not let through.
        """
        if self._moved_ms is None or not self._heard_nothing(silent_ms, now_ms):
            return False
        over = self._vain_count + 1 - VAIN_MOVES
        if over < 0:
            return False
        pause_ms = VAIN_PAUSES_MS[min(over, len(VAIN_PAUSES_MS) - 1)]
        return now_ms - self._moved_ms < pause_ms

    def _is_restless(self, now_ms: int) -> bool:
        """Say whether it moved so often lately that servers are hardly the reason.

        Each move is a record on every server; two machines with one key would make them for ever.
        """
        lately = self._lately_ms
        is_often = len(lately) == MOVES and now_ms - lately[0] < MOVES_WITHIN_MS
        return is_often and now_ms - lately[-1] < HOLD_MS

    def decide(self, at: str, *, silent_ms: int, now_ms: int) -> Move | None:
        """Return where to go from the server that the endpoint is at.

        Args:
            at: the server now.
            silent_ms: for how long nothing of it came through the tunnel.
            now_ms: monotonic.
        """
        if silent_ms >= SILENT_MS:
            if self._is_restless(now_ms) or self._is_in_vain(silent_ms, now_ms):
                return None
            target = self.best(now_ms=now_ms, but=(at,))
            why = f"{at} was silent for {silent_ms // 1000} s"
            return None if target is None else Move(server_id=target, why=why)
        if self._moved_ms is not None and now_ms - self._moved_ms < HOLD_MS:
            return None
        target, own_ms = self.best(now_ms=now_ms), self.latency_ms(at)
        if own_ms is None or own_ms <= SLOW_MS or target in (None, at):
            return None
        other_ms = self.latency_ms(target or "")
        if target is None or other_ms is None or other_ms > BETTER * own_ms:
            return None
        why = f"{at} takes {own_ms:.0f} ms, {target} {other_ms:.0f} ms"
        return Move(server_id=target, why=why)
