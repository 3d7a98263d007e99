"""Manifests from a releases URL: an index, and the manifests that it names. HTTPS, bounded.

    GET <url>/index.json  {"manifests": ["0.2.0-linux-x86_64.json", …]}
    GET <url>/<name>      a manifest

A redirect is not followed, and nothing counts for where it came from: each manifest is signed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec

from services.base.release.manifest import MAX_MANIFEST_BYTES
from services.kernel import canonical
from services.kernel.errors import ConfigError, SeipdError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.runtime.outbound import Response

MAX_INDEX_BYTES = 32 * 1024
MAX_NAMES = 256

_OK = 200
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}\.json\Z")


class Client(Protocol):
    """The way out over HTTPS."""

    async def fetch(self, method: str, url: str, *, max_bytes: int) -> Response:
        """Make one request; follow no redirect."""


class _Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifests: list[str]


def check_url(url: str) -> str:
    """Return a releases URL without a slash at its end.

    Raises:
        ConfigError: ``bad_releases_url``: not ``https``, or with user, query or fragment.
    """
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.hostname and parts.username is None
    except ValueError:
        parts, plain = urlsplit(""), False
    if not plain or parts.query or parts.fragment:
        raise ConfigError(
            f"{url[:200]!r} is no releases URL",
            code="bad_releases_url",
            mend="give one like https://releases.example.org/seipd",
        )
    return url.rstrip("/")


async def fetch_manifests(client: Client, url: str) -> AsyncIterator[bytes]:
    """Yield each manifest that the index names, unchecked.

    Raises:
        UnavailableError: ``releases_unavailable``: another answer than 200, or no index.
        UnreachableError: nobody answers there.
        TooLargeError: an answer beyond its limit.
    """
    index = await _get(client, f"{url}/index.json", MAX_INDEX_BYTES)
    try:
        names = msgspec.convert(canonical.decode(index), _Index).manifests
    except (msgspec.ValidationError, SeipdError) as error:
        raise _unavailable(f"{url}/index.json is no index: {error}") from error
    if len(names) > MAX_NAMES:
        raise _unavailable(f"{url}/index.json names {len(names)} manifests")
    for name in names:
        if _NAME.match(name) is None:
            raise _unavailable(f"{url}/index.json names {name[:80]!r}")
    for name in names:
        yield await _get(client, f"{url}/{name}", MAX_MANIFEST_BYTES)


async def _get(client: Client, url: str, max_bytes: int) -> bytes:
    answer = await client.fetch("GET", url, max_bytes=max_bytes)
    if answer.status != _OK:
        raise _unavailable(f"{url} answers {answer.status}")
    return answer.body


def _unavailable(what: str) -> UnavailableError:
    return UnavailableError(what, code="releases_unavailable")
