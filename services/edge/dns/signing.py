"""Signs record sets as they are asked for, with this server's own zone key. Pure.

What was signed is kept while the set is the same, within a bound; proofs that a name is not there
are made up by whoever asks, so they do not displace the rest.

Signatures begin an hour in the past, for clocks that are behind, and are good for a day and a half
at least, which is longer than any record may be kept. All that are made within twelve hours are
good for the same time: the same set has the same signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from services.edge.dns.building import RecordSet
from services.edge.dns.wire import Type
from services.kernel.dnssec import Validity, dnskey_data, key_tag, rrsig_head, signed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD_S: Final = 43_200
LIFETIME_S: Final = 4 * PERIOD_S
SKEW_S: Final = 3600
MAX_KEPT: Final = 1 << 16
MAX_KEPT_DENIALS: Final = 1 << 10

_Kept = dict[tuple[bytes, int], tuple[RecordSet, int, RecordSet]]


class Key(Protocol):
    """An Ed25519 key that signs here."""

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public half."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of a signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """What is published at the apex: all zone keys and the entry point, signed by the latter."""

    keys: RecordSet
    signature: RecordSet
    zone_keys: frozenset[bytes]
    """The public keys of the name servers."""


class ZoneSigner:
    """Signs for one zone while this server's key is published."""

    def __init__(self, *, apex: bytes, key: Key, published: Callable[[], KeySet | None]) -> None:
        self.apex = apex
        self._key = key
        self._published = published
        self._tag = key_tag(dnskey_data(key.public_key, is_entry_point=False))
        self._kept: _Kept = {}
        self._denials: _Kept = {}
        self.signed_count = 0

    def keys(self) -> KeySet | None:
        """Return what is published at the apex; None while nothing is signed."""
        return self._published()

    def at(self, clock_s: int) -> Signing | None:
        """Return what signs at this time; None where resolvers would not believe this key."""
        published = self._published()
        if published is None or self._key.public_key not in published.zone_keys:
            return None
        return Signing(signer=self, published=published, period=clock_s // PERIOD_S)

    def signature(self, name: bytes, records: RecordSet, period: int) -> RecordSet:
        """Return the RRSIG of a set."""
        kept, limit = self._kept, MAX_KEPT
        if records.rtype == Type.NSEC:
            kept, limit = self._denials, MAX_KEPT_DENIALS
        found = kept.get((name, records.rtype))
        if found is not None and found[1] == period and found[0] == records:
            return found[2]
        made = self._sign(name, records, period)
        if len(kept) >= limit:
            del kept[next(iter(kept))]
        kept[name, records.rtype] = (records, period, made)
        return made

    def _sign(self, name: bytes, records: RecordSet, period: int) -> RecordSet:
        self.signed_count += 1
        begin_s = period * PERIOD_S
        validity = Validity(inception_s=begin_s - SKEW_S, expiration_s=begin_s + LIFETIME_S)
        head = rrsig_head(
            name, records.rtype, records.ttl_s, validity, tag=self._tag, apex=self.apex
        )
        signature = self._key.sign(signed_bytes(head, name, records.rdatas))
        return RecordSet(rtype=Type.RRSIG, ttl_s=records.ttl_s, rdatas=(head + signature,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Signs at one moment."""

    signer: ZoneSigner
    published: KeySet
    period: int

    @property
    def apex(self) -> bytes:
        """The zone whose sets are signed."""
        return self.signer.apex

    def rrsig(self, name: bytes, records: RecordSet) -> RecordSet:
        """Return the RRSIG of a set; that of the keys is their own."""
        if records.rtype == Type.DNSKEY:
            return self.published.signature
        return self.signer.signature(name, records, self.period)
