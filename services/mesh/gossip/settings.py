"""The tunables of gossip, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from services.kernel.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipSettings:
    """Where gossip listens and how often it talks; port 0 takes a free one.

    Raises:
        ConfigError: out of range.
    """

    bind_address: str = "0.0.0.0"  # noqa: S104 (servers find each other on every network)
    port: int = 9102
    interval_s: float = 1.0
    fanout: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"gossip-port must be 0 to 65535, not {self.port}")
        if not 0.05 <= self.interval_s <= 60:
            raise ConfigError(f"the gossip interval must be 0.05 to 60 s, not {self.interval_s}")
        if not 1 <= self.fanout <= 16:
            raise ConfigError(f"the gossip fan-out must be 1 to 16, not {self.fanout}")
