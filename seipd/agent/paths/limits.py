"""How long a path waits for what."""

from __future__ import annotations

from typing import Final

SEARCH_S: Final = 3.0
RELAY_SEARCH_S: Final = 10.0
RELAY_AFTER_S: Final = 1.2
"""Pings that came through have been answered by then; a relay is not worth waiting longer for."""
SHAKE_S: Final = 5.0
SHAKE_AGAIN_S: Final = 1.0
"""Over a relay; on a direct way it is known how long an answer takes. WireGuard itself repeats a
lost initiation after five seconds."""
SHAKE_LATER_S: Final = 2.5
"""Each begins anew, so an answer that takes longer than the pause before is lost."""
SHAKE_EACH_S: Final = 0.15
ALONE_S: Final = 1.0
"""Up for so long with no word of the other over a relay, it carries all the same."""
ALIVE_EACH_S: Final = 2.0
QUIET_S: Final = 2.5
MOVED_DEAD_S: Final = 0.5
"""From another network: what still answers does so by then; meanwhile nothing may come through."""
RELAY_DEAD_S: Final = 16.0
"""Five keepalives of a relayed peer: on two lossy ways one after the other some get lost."""
TUNNEL_DEAD_S: Final = 90.0
"""Four keepalives of a direct peer: pings come through, and nothing of WireGuard does."""
BUSY_BYTES: Final = 1000
"""More than handshakes and keepalives between two looks: the other sends, so the path is wanted."""
COMPARE_EACH_S: Final = 30.0
REPOINT_EACH_S: Final = 1.0
LEAVE_RELAY_S: Final = 10.0
REPLAY_MS: Final = 16_384
