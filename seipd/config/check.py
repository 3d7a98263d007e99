"""Settings against the mesh: its ranges are facts, which no setting changes afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.config.model import range_values
from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from seipd.config.model import Settings
    from services.kernel.addr import Ranges


def refuse_other_ranges(settings: Settings, ranges: Ranges) -> None:
    """Refuse ranges that somebody gave and that are not the mesh's.

    Raises:
        ConfigError: which, and what the mesh has.
    """
    said = range_values(settings)
    faults = [
        f"{source}: {pool}_range is {said[pool]}, but the mesh was made with {fact}"
        for pool, fact in ranges.value().items()
        if (source := settings.sources.get(f"{pool}_range", "default")) != "default"
        and said[pool] != fact
    ]
    if faults:
        raise ConfigError(
            "; ".join(faults), mend="leave the ranges out: seipd init alone takes them"
        )
