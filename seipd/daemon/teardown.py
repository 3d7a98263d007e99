"""Takes down the tunnel that a daemon left up when it stopped."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from seipd.config.paths import Paths
from seipd.daemon.app import CREDENTIAL, unlock_path
from seipd.daemon.owner import as_owner_of
from services.base.keywrap.identity import load_identity
from services.base.keywrap.unlock import read_unlock
from services.base.storage.root import DataRoot
from services.edge.wireguard.choose import remove_leftover

if TYPE_CHECKING:
    from seipd.config.model import Settings


def take_down(settings: Settings) -> bool:
    """Remove this server's interface, and nobody else's; say whether it was there.

    Root may do it for the daemon's own user, to whom the data root then belongs.

    Raises:
        ConflictError: the daemon runs.
        KeyUnwrapError: the unlock secret is not the one of this identity.
    """
    paths, root = Paths(settings.data_root), DataRoot(settings.data_root)
    unlock_file = unlock_path(settings, paths)
    with as_owner_of(unlock_file):
        unlock = read_unlock(unlock_file, None, CREDENTIAL)
    with contextlib.closing(root):
        with as_owner_of(settings.data_root):
            root.open()
            identity = load_identity(paths.identity, unlock=unlock)
        return asyncio.run(
            remove_leftover(
                interface=settings.wireguard_interface,
                run_dir=paths.run,
                public_key=identity.wireguard_public_key,
            )
        )
