"""What a PCK certificate says of its platform: the FMSPC and the firmware that it was made for.

Source: Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5: one extension that
holds a DER sequence of (OID, value) pairs, some values being such sequences again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension

from services.base.attestation.errors import Refusal, refused

if TYPE_CHECKING:
    from cryptography import x509

_SGX = ObjectIdentifier("1.2.840.113741.1.13.1")
# The encoded prefix of all that stands under it.
_SGX_OID = bytes.fromhex("2a864886f84d010d01")
_TCB, _PCE_ID, _FMSPC = b"\x02", b"\x03", b"\x04"
_PCE_SVN = b"\x02\x11"
_SEQUENCE, _INTEGER, _OCTETS, _OID = 0x30, 0x02, 0x04, 0x06
_COMPONENTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PckPlatform:
    """The platform of a PCK certificate."""

    fmspc: bytes
    pce_id: bytes
    component_svns: tuple[int, ...]
    pce_svn: int


def platform_of(pck: x509.Certificate) -> PckPlatform:
    """Read the SGX extension of a PCK certificate.

    Raises:
        QuoteRefusedError: ``quote_key_not_certified``: it has none that can be read.
    """
    try:
        extension = pck.extensions.get_extension_for_oid(_SGX).value
        if not isinstance(extension, UnrecognizedExtension):
            raise ValueError("an unexpected extension")  # noqa: TRY004 (one answer to all)
        fields = _pairs(_only(extension.value, _SEQUENCE))
        parts = _pairs(_value(fields[_TCB], _SEQUENCE))
        svns = tuple(
            int.from_bytes(_value(parts[_TCB + bytes([number])], _INTEGER), "big")
            for number in range(1, _COMPONENTS + 1)
        )
        return PckPlatform(
            fmspc=_value(fields[_FMSPC], _OCTETS),
            pce_id=_value(fields[_PCE_ID], _OCTETS),
            component_svns=svns,
            pce_svn=int.from_bytes(_value(parts[_PCE_SVN], _INTEGER), "big"),
        )
    except (ValueError, KeyError, LookupError) as error:
        raise refused(
            Refusal.KEY_NOT_CERTIFIED, "the certificate names no SGX platform: no PCK"
        ) from error


def _pairs(data: bytes) -> dict[bytes, tuple[int, bytes]]:
    """Return the values of a sequence of pairs, by the end of their OID after the common prefix."""
    found = {}
    while data:
        tag, pair, data = _element(data)
        name_tag, name, rest = _element(pair)
        value_tag, value, left = _element(rest)
        if tag != _SEQUENCE or name_tag != _OID or left or not name.startswith(_SGX_OID):
            raise ValueError("not a pair of an OID and a value")
        found[name[len(_SGX_OID) :]] = (value_tag, value)
    return found


def _value(element: tuple[int, bytes], tag: int) -> bytes:
    if element[0] != tag:
        raise ValueError(f"a value of type {element[0]}, not {tag}")
    return element[1]


def _only(data: bytes, tag: int) -> bytes:
    found, value, rest = _element(data)
    if rest:
        raise ValueError("bytes after the end")
    return _value((found, value), tag)


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Return tag, content and what follows of the first DER element."""
    tag, size = data[0], data[1]
    start = 2
    if size & 0x80:
        width = size & 0x7F
        start += width
        if not 1 <= width <= 2:
            raise ValueError("an element that long")
        size = int.from_bytes(data[2:start], "big")
    end = start + size
    if end > len(data):
        raise ValueError("an element that ends early")
    return tag, data[start:end], data[end:]
