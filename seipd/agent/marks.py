"""The numbers by which this agent's routing is told from others'."""

from __future__ import annotations

from typing import Final

FWMARK: Final = 0x5E1B
"""What WireGuard's own packets carry, so that they never go into the tunnel."""
