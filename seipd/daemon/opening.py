"""This server's own keys: made once, opened at each start with the secret that seals them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from services.base.keywrap.identity import (
    ServerIdentity,
    create_identity,
    identity_exists,
    load_identity,
)
from services.base.keywrap.unlock import create_unlock_file, read_unlock

if TYPE_CHECKING:
    from seipd.config.model import Settings
    from seipd.config.paths import Paths

CREDENTIAL = "seipd-unlock"


def open_identity(settings: Settings, paths: Paths, *, create: bool = False) -> ServerIdentity:
    """Open this server's keys; with ``create`` make them where there are none.

    Raises:
        NotFoundError: no identity was ever made here.
        KeyUnwrapError: the unlock secret is not theirs.
    """
    unlock_file = unlock_path(settings, paths)
    if create and not unlock_file.exists() and not _has_credential(_credentials()):
        create_unlock_file(unlock_file)
    unlock = unlock_secret(settings, paths)
    if create and not identity_exists(paths.identity):
        return create_identity(paths.identity, unlock=unlock)
    return load_identity(paths.identity, unlock=unlock)


def unlock_secret(settings: Settings, paths: Paths) -> bytes:
    """Read what this server's secrets are sealed with.

    Raises:
        ConfigError: there is none, or others may read it.
    """
    return read_unlock(unlock_path(settings, paths), _credentials(), CREDENTIAL)


def unlock_path(settings: Settings, paths: Paths) -> Path:
    """Return where the unlock secret lies."""
    return Path(settings.unlock_file) if settings.unlock_file else paths.unlock


def _credentials() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _has_credential(folder: Path | None) -> bool:
    return folder is not None and (folder / CREDENTIAL).exists()
