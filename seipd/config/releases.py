"""The settings of binary attestation: whose manifests are believed, and where they come from."""

from __future__ import annotations

from services.kernel.errors import SeipdError
from services.kernel.ids import parse_key

ANYWHERE = "anywhere"
RELEASES_FROM = ("public", ANYWHERE)
"""Whether a releases URL may lead to addresses that are not public."""


def parse_keys(text: str) -> list[bytes]:
    """Parse release keys, as ``scripts/release-manifest --new-key`` prints them, apart by commas.

    Raises:
        InputError: ``bad_key``.
    """
    return [parse_key(one.strip()) for one in text.split(",") if one.strip()]


def bad_releases(*, keys: dict[str, str], url: str) -> list[tuple[str, str]]:
    """Return what is wrong with lists of keys, by setting, and the releases URL: name and why."""
    faults = []
    for name, text in keys.items():
        try:
            parse_keys(text)
        except SeipdError as error:
            faults.append((name, f"is wrong: {error}"))
    if url:
        # Loaded where there is one: every command reads the settings, and few meshes have it.
        from services.base.release.fetch import check_url

        try:
            check_url(url)
        except SeipdError as error:
            faults.append(("releases_url", f"is wrong: {error}"))
    return faults
