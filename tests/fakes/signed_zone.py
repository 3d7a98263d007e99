"""The keys of a signed zone, held by a test: an entry point and the zone key of one name server."""

from __future__ import annotations

from base64 import b64encode

from services.base.crypto.signatures import SigningKey
from services.edge.dns.building import RecordSet
from services.edge.dns.signing import KeySet, ZoneSigner
from services.edge.dns.wire import Type
from services.kernel.dnsnames import name_of
from services.kernel.dnssec import (
    Validity,
    dnskey_data,
    ds_data,
    key_tag,
    rrsig_head,
    signed_bytes,
)

TTL_S = 300


class SignedZone:
    """Publishes its DNSKEY set, signed for a month around a time."""

    def __init__(self, domain: str, *, now_s: int) -> None:
        self.apex = name_of(domain)
        self.entry_point = SigningKey(b"\1" * 32)
        self.zone_key = SigningKey(b"\2" * 32)
        self.other_key = SigningKey(b"\3" * 32)
        self.published: KeySet | None = self.key_set(now_s, self.zone_key, self.other_key)
        self.signer = ZoneSigner(
            apex=self.apex, key=self.zone_key, published=lambda: self.published
        )
        self._domain = domain

    def key_set(self, now_s: int, *zone_keys: SigningKey) -> KeySet:
        top = dnskey_data(self.entry_point.public_key, is_entry_point=True)
        zone = (dnskey_data(one.public_key, is_entry_point=False) for one in zone_keys)
        datas = (top, *zone)
        validity = Validity(inception_s=now_s - 86_400, expiration_s=now_s + 29 * 86_400)
        head = rrsig_head(self.apex, Type.DNSKEY, TTL_S, validity, tag=key_tag(top), apex=self.apex)
        signature = self.entry_point.sign(signed_bytes(head, self.apex, datas))
        return KeySet(
            keys=RecordSet(rtype=Type.DNSKEY, ttl_s=TTL_S, rdatas=datas),
            signature=RecordSet(rtype=Type.RRSIG, ttl_s=TTL_S, rdatas=(head + signature,)),
            zone_keys=frozenset(one.public_key for one in zone_keys),
        )

    @property
    def anchor_key(self) -> str:
        """The entry point in base64."""
        return b64encode(self.entry_point.public_key).decode()

    @property
    def ds(self) -> str:
        """The DS as a zone file has it."""
        data = ds_data(self.apex, dnskey_data(self.entry_point.public_key, is_entry_point=True))
        tag = int.from_bytes(data[:2], "big")
        return f"{self._domain}. IN DS {tag} 15 2 {data[4:].hex().upper()}"
