"""What opens a provider's keys: a PIN, an access key; from a credential or a file, no argument.

An argument or a variable stands in the list of processes, in a unit or in a shell's history.
"""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import TYPE_CHECKING

from services.base.storage import files
from services.kernel.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from seipd.signerd.providers.sigv4 import Credentials

PIN_CREDENTIAL = "seipd-signer-pin"
KMS_CREDENTIAL = "seipd-signer-kms"
MAX_PIN_BYTES = 256
MAX_SECRET_BYTES = 16 * 1024


def read_pin(file: Path | None) -> str:
    """Return the PIN of a token.

    Raises:
        ConfigError: ``no_pin``: none is there, or it is empty, too long or no text.
        KeyPermissionsError: others can read or replace the file.
        StorageError: the disk refused.
    """
    data = _read(PIN_CREDENTIAL, file, code="no_pin", option="--pkcs11-pin-file")
    try:
        pin = data.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("the PIN is not UTF-8", code="no_pin") from None
    if not 1 <= len(pin.encode()) <= MAX_PIN_BYTES or not pin.isprintable():
        raise ConfigError(
            f"a PIN has 1 to {MAX_PIN_BYTES} bytes on one line",
            code="no_pin",
            mend="write the PIN alone into its file",
        )
    return pin


def read_access_key(file: Path | None) -> Credentials:
    """Return the access key of AWS, from a file as its own programs read it.

    Raises:
        ConfigError: ``no_access_key``: none is there, or not in that form.
        KeyPermissionsError: others can read or replace the file.
        StorageError: the disk refused.
    """
    from seipd.signerd.providers.sigv4 import Credentials

    data = _read(KMS_CREDENTIAL, file, code="no_access_key", option="--kms-credentials-file")
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(data.decode("utf-8"))
        section = parser["default"]
        return Credentials(
            access_key_id=section["aws_access_key_id"],
            secret_access_key=section["aws_secret_access_key"],
            session_token=section.get("aws_session_token", ""),
        )
    except (configparser.Error, KeyError, UnicodeDecodeError):
        # The error would quote the line that it can't read.
        raise ConfigError(
            "the credentials of AWS are not in the form of ~/.aws/credentials",
            code="no_access_key",
            mend="write [default], aws_access_key_id = … and aws_secret_access_key = …",
        ) from None


def _read(credential: str, file: Path | None, *, code: str, option: str) -> bytes:
    """Read a credential of the service manager, else a file that is this user's alone."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder:
        try:
            # The service manager grants access by an access list: no look at the mode.
            return files.read_file(Path(folder) / credential, MAX_SECRET_BYTES)
        except NotFoundError:
            pass
    mend = f"give {option}, or LoadCredential={credential}:… in the unit"
    if file is None:
        raise ConfigError(f"no {credential} was given", code=code, mend=mend)
    try:
        return files.read_private(file, MAX_SECRET_BYTES)
    except NotFoundError:
        raise ConfigError(f"there is no file {file}", code=code, mend=mend) from None
