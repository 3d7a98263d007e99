"""Trust bundles (SPIFFE_Trust_Domain_and_Bundle.md): the authorities of one trust domain.

A bundle is a JWK set. Of its keys, those of use ``x509-svid`` are taken; others are looked at no
further than the standard bids. A set with no key at all revokes everybody.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from services.base.spiffe.ids import SpiffeError
from services.kernel import canonical
from services.kernel.errors import WireError

MAX_BUNDLE_BYTES = 1 << 20
MAX_KEYS = 256

_X509_USE = "x509-svid"
_JWT_USE = "jwt-svid"
_MAX_SEQUENCE = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What checks the certificates of a trust domain. ``sequence`` only grows."""

    trust_domain: str
    authorities: tuple[x509.Certificate, ...]
    sequence: int | None = None
    refresh_hint_s: int | None = None


def parse_bundle(data: bytes, *, trust_domain: str) -> Bundle:
    """Check a bundle.

    Raises:
        SpiffeError: ``bad_bundle``.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise _bad("it is over a megabyte")
    try:
        value = canonical.decode_object(data)
    except WireError as error:
        raise _bad(str(error)) from error
    keys = value.get("keys")
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise _bad("it holds no list of keys")
    return Bundle(
        trust_domain=trust_domain,
        authorities=tuple(
            found for at, key in enumerate(keys) if (found := _authority(key, at)) is not None
        ),
        sequence=_number(value, "spiffe_sequence"),
        refresh_hint_s=_number(value, "spiffe_refresh_hint"),
    )


def _authority(key: Any, at: int) -> x509.Certificate | None:  # noqa: ANN401 (of a stranger's JSON)
    if not isinstance(key, dict):
        raise _bad(f"key {at} is no object")
    if key.get("use") == _JWT_USE and not key.get("kid"):
        raise _bad(f"key {at} has no id")
    if key.get("use") != _X509_USE:
        return None
    chain = key.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise _bad(f"key {at} has not one certificate")
    try:
        return x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (ValueError, binascii.Error) as error:
        raise _bad(f"key {at} holds no certificate") from error


def _number(value: dict[str, Any], name: str) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number <= _MAX_SEQUENCE:
        raise _bad(f"{name} is no number")
    return number


def _bad(what: str) -> SpiffeError:
    return SpiffeError(f"not a SPIFFE bundle: {what}", code="bad_bundle")
