"""The status that the running agent tells, and how soon it looks again."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any, Final

from services.base.storage.files import FILE_MODE
from services.kernel import canonical

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

POLL_FAST_S: Final = 0.05
POLL_S: Final = 1.0
HURRY_S: Final = 30.0
"""Somebody waits for a handshake just after the start, not through a night without a network."""
RETRIES_S: Final = (1.0, 2.0, 4.0, 8.0)
"""Each makes the peer anew, so an answer that takes longer than the pause before is lost."""


class StatusFile:
    """What others read of the agent. It is of now: not worth a disk's time, nor lost by a crash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trouble = ""

    def write(self, value: dict[str, Any]) -> None:
        """Put it in the place of the one before; a disk that refuses takes no tunnel down."""
        path = self._path.with_name(f"{self._path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(path, flags, FILE_MODE), "wb") as file:
                file.write(canonical.encode(value))
            path.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            if str(error) != self._trouble:
                logger.warning("the status is not told: %s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""


class Patience:
    """When to ask for a handshake anew, and when to look again. Pure."""

    def __init__(self, now_s: float) -> None:
        self._since_s = self._asked_s = now_s
        self._asked_count = 0
        self._was_connected = False

    def asks_anew(self, *, connected: bool, now_s: float) -> bool:
        """Take whether the tunnel carries; say whether to ask for a handshake anew."""
        if connected is not self._was_connected:
            self._was_connected, self._since_s = connected, now_s
            self._asked_s, self._asked_count = now_s, 0
        pause_s = RETRIES_S[min(self._asked_count, len(RETRIES_S) - 1)]
        if connected or now_s - self._asked_s <= pause_s:
            return False
        self._asked_s, self._asked_count = now_s, self._asked_count + 1
        return True

    def pause_s(self, *, is_settled: bool, now_s: float) -> float:
        """Return after how long to look again."""
        hurries = not is_settled and now_s - self._since_s < HURRY_S
        return POLL_FAST_S if hurries else POLL_S
