"""Where the trust policy has its evidence from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.authority.trust.policy import Attested, Released
    from services.kernel.ids import ServerId


class Sources(Protocol):
    """What this server saw itself; soft, and another thing on each server."""

    def begin(self) -> None:
        """Begin a look at all servers of the roster."""

    def uptime(self, server_id: ServerId) -> tuple[int | None, int]:
        """Return how many of a thousand checks another server answered, and of how many checks."""

    def attested(self, server_id: ServerId) -> Attested:
        """Return what is known of a server's hardware."""

    def released(self, server_id: ServerId) -> Released:
        """Return what is known of what a server runs."""
