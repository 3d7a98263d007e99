"""The account at a CA: one key for each directory, made once and sealed at rest.

certs/accounts/<sha256 of the directory's URL, 16 digits>.enc   sealed (keywrap):
{"directory", "eab_kid", "key" (PEM), "url"}   canonical JSON
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from services.base.crypto.kdf import DEFAULT_COST, Argon2Cost
from services.base.keywrap.wrap import MAX_SEALED_BYTES, SEAL_RANDOM_BYTES, open_sealed, seal
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel import canonical
from services.kernel.errors import NotFoundError, SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

_PURPOSE: Final = "seipd/acme-account/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalBinding:
    """What ties an account to a customer of the CA (RFC 8555, 7.3.4)."""

    kid: str
    hmac_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account and its key."""

    directory: str
    url: str
    key_pem: bytes = field(repr=False)
    eab_kid: str = ""


class AccountStore:
    """The accounts of this server; what it does takes some 0.1 s each, so run it in a thread."""

    def __init__(
        self,
        *,
        folder: Path,
        unlock: Callable[[], bytes],
        clock: Clock,
        cost: Argon2Cost = DEFAULT_COST,
    ) -> None:
        self._folder = folder
        self._unlock = unlock
        self._clock = clock
        self._cost = cost
        self.notice = ""
        """What an operator has to know: a file that could not be read and lies aside."""

    def load(self, directory: str, eab_kid: str) -> Account | None:
        """Return the account at a directory; None where there is none, or one of another binding.

        One that does not open is moved aside: a CA gives out another account, and no certificate
        depends on the old one.
        """
        path = self._path(directory)
        try:
            sealed = read_private(path, MAX_SEALED_BYTES)
        except NotFoundError:
            return None
        try:
            value = canonical.decode_object(
                open_sealed(sealed, unlock=self._unlock(), purpose=_PURPOSE)
            )
            account = Account(
                directory=value["directory"],
                url=value["url"],
                key_pem=value["key"].encode("ascii"),
                eab_kid=value["eab_kid"],
            )
        except (SeipdError, KeyError, AttributeError, UnicodeEncodeError) as error:
            self.forget(directory)
            logger.warning("the account at %s does not open: %s", directory, error)
            return None
        if account.directory != directory or account.eab_kid != eab_kid:
            return None
        return account

    def save(self, account: Account) -> None:
        """Write an account down, sealed.

        Raises:
            StorageError: the disk refused.
        """
        make_private_dir(self._folder)
        plain = canonical.encode(
            {
                "directory": account.directory,
                "url": account.url,
                "key": account.key_pem.decode("ascii"),
                "eab_kid": account.eab_kid,
            }
        )
        sealed = seal(
            plain,
            unlock=self._unlock(),
            purpose=_PURPOSE,
            random=secrets.token_bytes(SEAL_RANDOM_BYTES),
            cost=self._cost,
        )
        write_atomic(self._path(account.directory), sealed)

    def forget(self, directory: str) -> None:
        """Move an account aside, so that another is made."""
        path = self._path(directory)
        aside = path.with_name(f"{path.name}.old-{self._clock.now_ms()}")
        if path.exists():
            path.rename(aside)
            self.notice = f"the account at {directory} was given up; its file is {aside.name}"

    def _path(self, directory: str) -> Path:
        name = hashlib.sha256(directory.encode()).hexdigest()[:16]
        return self._folder / f"{name}.enc"
