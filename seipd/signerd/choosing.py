"""Which provider keeps the keys, as the options of the program say."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seipd.signerd.options import KINDS
from seipd.signerd.secret_files import read_access_key, read_pin
from services.base.keywrap.unlock import NoUnlockError, read_unlock
from services.base.storage.files import storage_error
from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from seipd.signerd.providers.base import KeyProvider

UNLOCK_CREDENTIAL = "seipd-signer-unlock"
KEYS_FOLDER = "keys"
ALIAS_PREFIX = "seipd/"

_ALIAS_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_-")
_MAX_PREFIX_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """The options as they were given; those of the other providers are None."""

    provider: str | None = None
    pkcs11_module: str | None = None
    pkcs11_token: str | None = None
    pkcs11_pin_file: str | None = None
    kms_region: str | None = None
    kms_endpoint: str | None = None
    kms_alias_prefix: str | None = None
    kms_credentials_file: str | None = None


def provider_of(
    settings: ProviderSettings, *, folder: Path, unlock_file: Path | None
) -> KeyProvider:
    """Return the provider that was chosen; nothing of it is opened yet.

    Args:
        settings: which, and where it is.
        folder: of the signer's state.
        unlock_file: what opens sealed files; of the software provider only.

    Raises:
        ConfigError: ``bad_provider``: an option of it is missing; ``no_pin``, ``no_access_key``,
            ``bad_region``, ``bad_endpoint``, ``bad_module``.
        NoUnlockError: there is no unlock secret, and there are sealed keys or shall be.
        KeyPermissionsError: others can read a secret of it.
    """
    match settings.provider or "software":
        case "software":
            return _software(folder, unlock_file)
        case "pkcs11":
            return _beside_sealed(_pkcs11(settings), folder, unlock_file)
        case "kms":
            return _beside_sealed(_kms(settings), folder, unlock_file)
        case other:
            raise ConfigError(
                f"there is no provider {other[:40]!r}",
                code="bad_provider",
                mend=f"choose one of {', '.join(KINDS)}",
            )


def _software(folder: Path, unlock_file: Path | None) -> KeyProvider:
    from seipd.signerd.providers.software import SoftwareProvider

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    where = Path(credentials) if credentials else None
    unlock = read_unlock(unlock_file, where, UNLOCK_CREDENTIAL)
    return SoftwareProvider(folder / KEYS_FOLDER, unlock=unlock)


def _beside_sealed(provider: KeyProvider, folder: Path, unlock_file: Path | None) -> KeyProvider:
    """Let keys of before, which lie in sealed files, sign on where there are some."""
    keys = folder / KEYS_FOLDER
    try:
        if next(keys.iterdir(), None) is None:
            return provider
    except FileNotFoundError:
        return provider
    except OSError as error:
        raise storage_error(error, f"list {keys}") from error
    from seipd.signerd.providers.moving import MovingProvider

    try:
        return MovingProvider(old=_software(folder, unlock_file), new=provider)
    except NoUnlockError as error:
        raise NoUnlockError(
            f"there are sealed keys in {keys}, and no secret that opens them",
            mend=f"give the unit LoadCredential={UNLOCK_CREDENTIAL}:… too; once all of them are"
            f" retired, remove {keys}",
        ) from error


def _pkcs11(settings: ProviderSettings) -> KeyProvider:
    module = _needed(settings.pkcs11_module, "--pkcs11-module")
    label = _needed(settings.pkcs11_token, "--pkcs11-token")
    if not Path(module).is_absolute():
        # A bare name would be looked for in folders that others may write to.
        raise ConfigError(
            f"not a whole path: {module[:200]}",
            code="bad_module",
            mend="write the library's path from the root folder on",
        )
    pin = read_pin(_path(settings.pkcs11_pin_file))
    from seipd.signerd.providers.pkcs11 import Pkcs11Provider, TokenPlace

    return Pkcs11Provider(TokenPlace(module=module, token_label=label, pin=pin))


def _kms(settings: ProviderSettings) -> KeyProvider:
    from seipd.signerd.providers import kms_api
    from seipd.signerd.providers.https import HttpsPoster, parse_endpoint
    from seipd.signerd.providers.kms import KmsProvider
    from seipd.signerd.providers.sigv4 import ServicePlace
    from services.runtime.clock import SystemClock

    region = kms_api.parse_region(_needed(settings.kms_region, "--kms-region"))
    endpoint = parse_endpoint(settings.kms_endpoint or f"https://kms.{region}.amazonaws.com")
    prefix = ALIAS_PREFIX if settings.kms_alias_prefix is None else settings.kms_alias_prefix
    if not set(prefix) <= _ALIAS_CHARS or len(prefix) > _MAX_PREFIX_CHARS:
        raise ConfigError(
            f"not the beginning of an alias: {prefix[:80]!r}",
            code="bad_provider",
            mend="use letters, digits, / _ and -",
        )
    file = _path(settings.kms_credentials_file)
    read_access_key(file)  # said now and not at the first signature
    clock = SystemClock()
    return KmsProvider(
        poster=HttpsPoster(endpoint, clock=clock),
        place=ServicePlace(region=region, service=kms_api.SERVICE),
        alias_prefix=prefix,
        credentials=lambda: read_access_key(file),
        clock=clock,
        jitter=secrets.SystemRandom(),
    )


def _needed(value: str | None, option: str) -> str:
    if not value:
        raise ConfigError(
            f"the provider needs {option}",
            code="bad_provider",
            mend=f"give it, or set SEIPD_SIGNER_{option.strip('-').replace('-', '_').upper()}",
        )
    return value


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
