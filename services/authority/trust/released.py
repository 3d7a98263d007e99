"""What servers tell that they run, judged by the manifests here. Pure: time comes in.

Who tells nothing is waited for, an hour from when it was first missed, and while it is not there at
all no longer than that: silence must not be better than the truth. What a server tells is its own
word; see ``services.base.release``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.authority.trust.policy import Outcome, Released
from services.kernel.errors import ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.base.release.approval import Running
    from services.kernel.ids import ServerId

SILENCE_MS: Final = 3_600_000


class ReleaseBook:
    """Since when each server is waited for, and what its word is worth."""

    def __init__(self) -> None:
        self._missed_ms: dict[ServerId, int] = {}

    def watch(self, servers: Collection[ServerId]) -> None:
        """Go by these servers; the others are forgotten."""
        self._missed_ms = {one: at for one, at in self._missed_ms.items() if one in servers}

    def judge(
        self,
        server_id: ServerId,
        told: Running | None,
        *,
        approve: Callable[[Running], object],
        is_known: bool,
        now_ms: int,
    ) -> Released:
        """Return what is known of what a server runs.

        Args:
            server_id: the server.
            told: what it tells.
            approve: returns where a manifest approves of it, and raises a ForbiddenError where
                none does; its code and text are the reason.
            is_known: whether there are manifests here at all.
            now_ms: the time.
        """
        if told is None:
            since_ms = self._missed_ms.setdefault(server_id, now_ms)
            if now_ms - since_ms < SILENCE_MS:
                return Released(is_known=is_known)
            return Released(outcome=Outcome.FAILED, is_known=is_known, why="it did not tell it")
        self._missed_ms.pop(server_id, None)
        try:
            approve(told)
        except ForbiddenError as error:
            return Released(
                outcome=Outcome.FAILED,
                version=told.version,
                code=error.code,
                is_known=is_known,
                why=str(error),
            )
        return Released(outcome=Outcome.GOOD, version=told.version, is_known=is_known)
