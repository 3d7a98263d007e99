"""Takes down the tunnel that a daemon left up when it stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from seipd.config.paths import Paths
from seipd.daemon.app import open_identity
from services.base.storage.root import DataRoot
from services.edge.wireguard.choose import remove_leftover

if TYPE_CHECKING:
    from seipd.config.model import Settings


def take_down(settings: Settings) -> bool:
    """Remove this server's interface, and nobody else's; say whether it was there.

    Raises:
        ConflictError: the daemon runs.
    """
    paths = Paths(settings.data_root)
    with DataRoot(settings.data_root):
        identity = open_identity(settings, paths)
        return asyncio.run(
            remove_leftover(
                interface=settings.wireguard_interface,
                run_dir=paths.run,
                public_key=identity.wireguard_public_key,
            )
        )
