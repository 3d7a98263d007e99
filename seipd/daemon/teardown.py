"""Takes down the tunnel that a daemon left up when it stopped, and the rules beside it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from seipd.config.paths import Paths
from seipd.daemon.opening import CREDENTIAL, unlock_path
from seipd.daemon.owner import as_owner_of
from services.base.keywrap.identity import load_identity
from services.base.keywrap.unlock import read_unlock
from services.base.storage.root import DataRoot
from services.edge.policy.compiling import table_name
from services.edge.policy.table import remove_table
from services.edge.relay.kernelpath import remove_leftover as remove_relay_leftover
from services.edge.relay.tables import table_name as relay_table_name
from services.edge.subnets.guarding import table_name as subnets_table_name
from services.edge.wireguard.choose import remove_leftover

if TYPE_CHECKING:
    from pathlib import Path

    from seipd.config.model import Settings


def take_down(settings: Settings) -> bool:
    """Remove this server's interface and tables, and nobody else's; say whether one was there.

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
            _remove(settings, run_dir=paths.run, public_key=identity.wireguard_public_key)
        )


async def _remove(settings: Settings, *, run_dir: Path, public_key: bytes) -> bool:
    interface = settings.wireguard_interface
    was_there = await remove_leftover(interface=interface, run_dir=run_dir, public_key=public_key)
    for name in (table_name(interface), subnets_table_name(interface)):
        was_there |= await asyncio.to_thread(remove_table, name)
    was_there |= await asyncio.to_thread(remove_relay_leftover, relay_table_name(interface))
    return was_there
