"""The tunables of membership, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.kernel.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipSettings:
    """How often servers are asked, how long they may be silent, how loudly it is told.

    Raises:
        ConfigError: out of range.
    """

    interval_s: float = 1.0
    """Each server is asked once in this time by one of the others."""
    timeout_s: float = 0.5
    """How long a direct answer may take at least; three round trips where those are slower."""
    max_timeout_s: float = 1.0
    indirect_s: float = 0.5
    """How long the answer through others may take, at least."""
    nack_s: float = 0.25
    """After what silence a helper says that it is there but the target is not, at least."""
    helpers: int = 3
    fanout: int = 3
    """To how many servers news is told at once."""
    min_suspicion_s: float = 2.1
    suspicion_log: float = 0.37
    """The shortest suspicion lasts this, times log2 of the servers, times the interval."""
    suspicion_spread: float = 6.0
    """The longest lasts this many times the shortest (Lifeguard's beta)."""
    confirmations: int = 3
    """How many confirm a suspicion until it lasts the shortest time (Lifeguard's k)."""
    recheckers: int = 6
    """How many servers ask again when they hear of a suspicion."""

    def __post_init__(self) -> None:
        if not 0.05 <= self.interval_s <= 60:
            raise ConfigError(f"the probe interval must be 0.05 to 60 s, not {self.interval_s}")
        if not 0 < self.timeout_s <= self.max_timeout_s <= 10:
            raise ConfigError(f"the probe timeout must be above 0 s, not {self.timeout_s}")
        if not 1 <= self.fanout <= 16:
            raise ConfigError(f"the membership fan-out must be 1 to 16, not {self.fanout}")

    def suspicion_s(
        self, servers: int, *, confirmations: int, wanted: int, patience_s: float = 0.0
    ) -> float:
        """Return how long a suspicion lasts (Lifeguard, section IV.B).

        ``patience_s`` lengthens the shortest for a server that is known to answer slowly.
        """
        by_size_s = self.suspicion_log * math.log2(servers + 1) * self.interval_s
        shortest_s = max(self.min_suspicion_s, by_size_s)
        longest_s = shortest_s * self.suspicion_spread
        shortest_s = min(max(shortest_s, patience_s), longest_s)
        if confirmations >= wanted:
            return shortest_s
        share = math.log(confirmations + 1) / math.log(wanted + 1)
        return longest_s - (longest_s - shortest_s) * share

    def tellings(self, servers: int) -> int:
        """Return how often one rumour is told."""
        return 3 * math.ceil(math.log2(servers + 1))
