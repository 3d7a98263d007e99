"""How far the tunnel to a peer is."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """In the order in which they are gone through."""

    IDLE = "idle"
    SEARCHING = "searching"
    SHAKING = "shaking"
    CARRYING = "carrying"
