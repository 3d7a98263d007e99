"""Binary attestation as the daemon runs it: release keys and URL from the settings."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from seipd.config.releases import parse_keys
from services.base.release.manifest import ReleaseKeys
from services.base.release.service import ReleaseService
from services.base.release.store import ManifestStore

if TYPE_CHECKING:
    from seipd.config.model import Settings
    from seipd.config.paths import Paths
    from services.kernel.clock import Clock

# A second or two of work that nobody waits for, and much else is to be done at the start.
MEASURE_AFTER_S = 5.0


def release_of(settings: Settings, paths: Paths, clock: Clock) -> ReleaseService:
    """Return what measures this installation and keeps manifests."""
    keys = ReleaseKeys(
        trusted=frozenset(parse_keys(settings.release_keys)),
        retired=frozenset(parse_keys(settings.retired_release_keys)),
    )
    return ReleaseService(
        store=ManifestStore(folder=paths.releases, keys=keys),
        clock=clock,
        rng=secrets.SystemRandom(),
        releases_url=settings.releases_url,
        measure_after_s=MEASURE_AFTER_S,
    )
