r"""DNSSEC's own records as bytes: DNSKEY, DS, and what an RRSIG signs (RFC 4034, RFC 8080). Pure.

    DNSKEY   flags 2 | protocol, 3 | algorithm 1 | public key
    DS       key tag 2 | algorithm 1 | digest type 1 | digest
    RRSIG    type covered 2 | algorithm 1 | labels 1 | original TTL 4 | expiration 4 | inception 4
             | key tag 2 | signer's name | signature
    signed   RRSIG without its signature || each record: owner, type 2, class 2, TTL 4, length 2,
             data; in the order of the data, names in lower case

The one algorithm is Ed25519 (15). Times are seconds since 1970, modulo 2^32.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.kernel.dnsnames import labels_of

if TYPE_CHECKING:
    from collections.abc import Iterable

ED25519: Final = 15
SHA_256: Final = 2
ZONE_FLAG: Final = 0x0100
ENTRY_POINT_FLAG: Final = 0x0001
DNSKEY: Final = 48
_PROTOCOL: Final = 3
_CLASS_IN: Final = b"\0\1"


def dnskey_data(public_key: bytes, *, is_entry_point: bool) -> bytes:
    """Return the data of a DNSKEY; an entry point (KSK) is what a DS at the parent names."""
    flags = ZONE_FLAG | (ENTRY_POINT_FLAG if is_entry_point else 0)
    return flags.to_bytes(2, "big") + bytes([_PROTOCOL, ED25519]) + public_key


def key_tag(dnskey: bytes) -> int:
    """Return the tag of a DNSKEY's data (RFC 4034 appendix B)."""
    total = sum(octet if at & 1 else octet << 8 for at, octet in enumerate(dnskey))
    return (total + (total >> 16)) & 0xFFFF


def ds_data(apex: bytes, dnskey: bytes) -> bytes:
    """Return the data of the DS that a parent has for a key."""
    head = key_tag(dnskey).to_bytes(2, "big") + bytes([dnskey[3], SHA_256])
    return head + hashlib.sha256(apex + dnskey).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """From when until when a signature is good, in seconds since 1970."""

    inception_s: int
    expiration_s: int


def rrsig_head(
    owner: bytes, rtype: int, ttl_s: int, validity: Validity, *, tag: int, apex: bytes
) -> bytes:
    """Return the data of an RRSIG up to its signature."""
    labels = labels_of(owner)
    # A wildcard's own label does not count (RFC 4034 section 3.1.3).
    count = len(labels) - (labels[:1] == [b"*"])
    return (
        rtype.to_bytes(2, "big")
        + bytes([ED25519, count])
        + ttl_s.to_bytes(4, "big")
        + (validity.expiration_s & 0xFFFFFFFF).to_bytes(4, "big")
        + (validity.inception_s & 0xFFFFFFFF).to_bytes(4, "big")
        + tag.to_bytes(2, "big")
        + apex
    )


def signed_bytes(head: bytes, owner: bytes, rdatas: Iterable[bytes]) -> bytes:
    """Return what the signature of a record set is made over.

    Args:
        head: see ``rrsig_head``.
        owner: in lower case, as are the names in the data.
        rdatas: uncompressed.
    """
    # Type and TTL as the head has them.
    start = owner + head[:2] + _CLASS_IN + head[4:8]
    records = (start + len(one).to_bytes(2, "big") + one for one in sorted(set(rdatas)))
    return head + b"".join(records)
