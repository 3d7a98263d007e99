"""Where the unlock secret comes from: a systemd credential, or a file outside the data root.

A backup of the data root therefore opens no key by itself. The credential goes first: who has one
configured means it. A secret of one's own (a passphrase) may stand in either; a trailing line break
does not count.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from services.base.storage import files
from services.kernel.errors import ConfigError, ConflictError, NotFoundError
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from pathlib import Path

UNLOCK_BYTES = 32
MIN_UNLOCK_CHARS = 20
MAX_UNLOCK_BYTES = 4096


class NoUnlockError(ConfigError):
    """There is no unlock secret, or not one to take seriously."""

    default_code = "no_unlock"


def read_unlock(file: Path | None, credentials_dir: Path | None, credential_name: str) -> bytes:
    """Return the unlock secret.

    Args:
        file: the unlock file; None where there is none by design.
        credentials_dir: ``$CREDENTIALS_DIRECTORY``, if the service manager has set it.
        credential_name: for example ``seipd-unlock``.

    Raises:
        NoUnlockError: neither is there, or the secret has fewer than 20 characters.
        KeyPermissionsError: others can read or replace the file.
        UnsafeFileError: the file is a link, a device, a folder, or has a second name.
        StorageError: the disk refused.
    """
    if credentials_dir is not None:
        path = credentials_dir / credential_name
        try:
            # No look at the mode: the service manager grants access by an access list, which
            # shows as rights of the group.
            return _checked(files.read_file(path, MAX_UNLOCK_BYTES), path)
        except NotFoundError:
            if file is None:
                raise NoUnlockError(
                    f"the credential {credential_name} is not set",
                    mend=f"add LoadCredential={credential_name}:… to the unit",
                ) from None
    if file is None:
        raise NoUnlockError(
            "no unlock secret was given",
            mend=f"name an unlock file, or run under a unit with LoadCredential={credential_name}",
        )
    try:
        return _checked(files.read_private(file, MAX_UNLOCK_BYTES), file)
    except NotFoundError as error:
        raise NoUnlockError(
            f"there is no unlock file {file}",
            mend="restore it from where you keep it: the keys do not open without it",
        ) from error


def create_unlock_file(path: Path) -> bytes:
    """Make an unlock file with 32 random bytes, mode 0600, and return the secret.

    Raises:
        ConflictError: there is such a file; it is left alone.
        StorageError: the disk refused; nothing is left behind.
    """
    unlock = b64u_encode(secrets.token_bytes(UNLOCK_BYTES)).encode("ascii")
    if not files.create_exclusive(path, unlock + b"\n"):
        raise ConflictError(
            f"there is an unlock file {path} already",
            mend="use it; or remove it if no key was ever sealed with it",
        )
    return unlock


def _checked(data: bytes, path: Path) -> bytes:
    unlock = data.rstrip(b"\r\n")
    if len(unlock) < MIN_UNLOCK_CHARS:
        raise NoUnlockError(
            f"{path} holds fewer than {MIN_UNLOCK_CHARS} characters",
            mend=f"restore {path}; or remove it if no key was ever sealed with it",
        )
    return unlock
