"""SPIFFE IDs (standards/SPIFFE-ID.md): ``spiffe://<trust domain>/<path>``, in one spelling.

The standard calls scheme and trust domain case-insensitive; here, as in go-spiffe, an upper-case
letter in either is refused: an identity that has two spellings is compared wrongly one day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from typing_extensions import override

from services.kernel.errors import InputError

MAX_ID_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255

_SCHEME = "spiffe://"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")


class SpiffeError(InputError):
    """A name, a certificate or a bundle that does not follow the SPIFFE standards."""

    default_code = "bad_spiffe"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A SPIFFE ID; without a path it names the trust domain itself."""

    trust_domain: str
    path: str = ""

    @override
    def __str__(self) -> str:
        """Return the URI."""
        return f"{_SCHEME}{self.trust_domain}{self.path}"


def parse_spiffe_id(text: str) -> SpiffeId:
    """Check a SPIFFE ID.

    Raises:
        SpiffeError: ``bad_spiffe_id``.
    """
    if len(text) > MAX_ID_BYTES or not text.startswith(_SCHEME):
        raise SpiffeError("a SPIFFE ID begins with spiffe:// and is short", code="bad_spiffe_id")
    trust_domain, slash, path = text.removeprefix(_SCHEME).partition("/")
    if not _TRUST_DOMAIN.match(trust_domain):
        raise SpiffeError("a trust domain is 1 to 255 of a-z 0-9 . _ -", code="bad_spiffe_id")
    if slash:
        for segment in path.split("/"):
            if segment in {".", ".."} or not _SEGMENT.match(segment):
                raise SpiffeError(
                    "a path's segments are A-Z a-z 0-9 . _ -, none empty, none . or ..",
                    code="bad_spiffe_id",
                )
    return SpiffeId(trust_domain, f"{slash}{path}")
