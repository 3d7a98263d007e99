"""Where CAs have their directories, and which URLs of a CA are followed. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from services.kernel.errors import ConfigError, ForbiddenError

KNOWN: Final = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "zerossl": "https://acme.zerossl.com/v2/DV90",
}
MAX_URL_CHARS: Final = 2_000


def directory_url(text: str) -> str:
    """Return the directory of a CA by its name, or check a URL.

    Raises:
        ConfigError: ``bad_acme_directory``: neither a name that is known nor an https URL.
    """
    url = KNOWN.get(text, text)
    if not _is_plain(url):
        raise ConfigError(
            f"{text[:200]!r} is no ACME directory",
            code="bad_acme_directory",
            mend=f"say {', '.join(KNOWN)} or an https URL",
        )
    return url


def require_https(url: str) -> str:
    """Check a URL that a CA told us.

    Raises:
        ForbiddenError: ``ca_bad_url``: not https, or with a user in it.
    """
    if not _is_plain(url):
        raise ForbiddenError(
            f"the CA leads to {url[:200]!r}, which is not https", code="ca_bad_url"
        )
    return url


def _is_plain(url: str) -> bool:
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and parts.username is None
