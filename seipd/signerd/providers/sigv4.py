"""AWS Signature Version 4, as far as AWS KMS needs it. Pure.

All of KMS is POST / with no query, so this signs neither paths nor queries: no rules of escaping,
and none to get wrong. The SDK that would do it (botocore, over ten megabytes) has no place beside
the root key. AWS's published test suite is the law: tests/vectors/test_aws_sigv4_vectors.py.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM = "AWS4-HMAC-SHA256"
DATE_HEADER = "X-Amz-Date"
TOKEN_HEADER = "X-Amz-Security-Token"  # noqa: S105 (the name of a header)

_DATE_CHARS = 8
_TERMINATOR = "aws4_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An access key; the token is there for temporary ones."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlace:
    """Which service of which region a request is for."""

    region: str
    service: str


def authorization(
    method: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    credentials: Credentials,
    place: ServicePlace,
) -> str:
    """Return the value of the header Authorization for a request to ``/``.

    Args:
        method: for example POST.
        headers: all that are sent and signed; ``Host`` and ``X-Amz-Date`` (as
            ``20150830T123600Z``) among them.
        body: what is sent.
        credentials: the access key.
        place: region and service.
    """
    names, request = canonical_request(method, headers, body)
    date = headers[DATE_HEADER]
    scope = f"{date[:_DATE_CHARS]}/{place.region}/{place.service}/{_TERMINATOR}"
    text = string_to_sign(date, scope, request)
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def canonical_request(method: str, headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """Return the names of the signed headers and the canonical request."""
    # Spaces at the ends go, those in between become one.
    lines = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    names = ";".join(sorted(lines))
    shown = "".join(f"{name}:{lines[name]}\n" for name in sorted(lines))
    return names, f"{method}\n/\n\n{shown}\n{names}\n{hashlib.sha256(body).hexdigest()}"


def string_to_sign(date: str, scope: str, request: str) -> str:
    """Return what the signature is made over."""
    return f"{ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
