"""The settings of binary attestation: whose manifests are believed, and where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.release.fetch import check_url
from services.kernel.errors import SeipdError
from services.kernel.ids import parse_key

if TYPE_CHECKING:
    from seipd.config.model import Settings


def parse_keys(text: str) -> list[bytes]:
    """Parse release keys, as ``scripts/release-manifest --new-key`` prints them, apart by commas.

    Raises:
        InputError: ``bad_key``.
    """
    return [parse_key(one.strip()) for one in text.split(",") if one.strip()]


def bad_releases(settings: Settings) -> list[tuple[str, str]]:
    """Return what is wrong with them: the setting's name and why."""
    faults = []
    for name in ("release_keys", "retired_release_keys"):
        try:
            parse_keys(getattr(settings, name))
        except SeipdError as error:
            faults.append((name, f"is wrong: {error}"))
    if settings.releases_url:
        try:
            check_url(settings.releases_url)
        except SeipdError as error:
            faults.append(("releases_url", f"is wrong: {error}"))
    return faults
