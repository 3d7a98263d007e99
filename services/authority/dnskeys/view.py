"""The keys of the mesh's zone: one of each name server, and the entry point that vouches for them.

    zsk/<server>       {key}                          a name server's own zone signing key
    dnskeys/set        {ksk, zsks, ttl, inception, expiration, signature}   the DNSKEY set in force

Kinds: ``dns.zsk`` {key}, signed by the server on whose feed it stands, for itself. ``dns.keys``,
the fields of the set, signed by the root: which key vouches for the zone is the root's to say. The
signature in it is that of the DNSKEY set's RRSIG, and checked by whoever folds it. Keys and
signature are base64url, the keys in order; times are seconds since 1970.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.authority.names.view import SLOTS, slots_held
from services.kernel.dnsnames import name_of
from services.kernel.dnssec import (
    DNSKEY,
    Validity,
    dnskey_data,
    ds_data,
    key_tag,
    rrsig_head,
    signed_bytes,
)
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import SIGNATURE_BYTES, b64u_decode, parse_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.kernel.views import Appliers, FoldContext, RosterReader, StateReader

    Verify = Callable[[bytes, bytes, bytes], bool]

ZSK_VIEW: Final = "zsk"
VIEW: Final = "dnskeys"
SET_KEY: Final = "set"
ZSK_KIND: Final = "dns.zsk"
KEYS_KIND: Final = "dns.keys"
MAX_LIFETIME_S: Final = 60 * 86_400
TTL_S: Final = 300

_Time = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class KeysWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``dns.keys``."""

    ksk: str
    zsks: Annotated[list[str], msgspec.Meta(min_length=1, max_length=len(SLOTS))]
    ttl: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    inception: _Time
    expiration: _Time
    signature: str

    @property
    def entry_point(self) -> bytes:
        """The data of the DNSKEY that the parent's DS names."""
        return dnskey_data(parse_key(self.ksk), is_entry_point=True)

    @property
    def datas(self) -> tuple[bytes, ...]:
        """The data of all DNSKEY records."""
        zone = (dnskey_data(parse_key(one), is_entry_point=False) for one in self.zsks)
        return (self.entry_point, *zone)

    def rrsig_head(self, apex: bytes) -> bytes:
        """Return the RRSIG's data up to its signature."""
        validity = Validity(inception_s=self.inception, expiration_s=self.expiration)
        tag = key_tag(self.entry_point)
        return rrsig_head(apex, DNSKEY, self.ttl, validity, tag=tag, apex=apex)

    def signed(self, apex: bytes) -> bytes:
        """Return what the entry point signs."""
        return signed_bytes(self.rrsig_head(apex), apex, self.datas)

    def rrsig(self, apex: bytes) -> bytes:
        """Return the whole data of the RRSIG."""
        return self.rrsig_head(apex) + b64u_decode(self.signature)


def keys_in_force(state: StateReader) -> KeysWire | None:
    """Return the DNSKEY set; None where the zone is not signed."""
    found = state.get(VIEW, SET_KEY)
    return None if found is None else msgspec.convert(found, KeysWire)


def keys_wanted(state: StateReader, roster: RosterReader) -> list[str]:
    """Return the keys of those who are name servers now, in order."""
    holders = slots_held(state, roster).values()
    found = (state.get(ZSK_VIEW, holder) for holder in holders)
    return sorted({one["key"] for one in found if one is not None})


def apex_of(state: StateReader) -> bytes:
    """Return the name of the mesh's zone."""
    return name_of(state.get("mesh", "genesis")["body"]["domain"])


def ds_of(keys: KeysWire, apex: bytes) -> bytes:
    """Return the data of the DS for the parent."""
    return ds_data(apex, keys.entry_point)


def _zsk(context: FoldContext, body: dict[str, Any]) -> None:
    key = body.get("key")
    if set(body) != {"key"} or not isinstance(key, str):
        raise InputError("a server announces one key")
    parse_key(key)
    author = context.author
    if context.record.actor != author.key:
        raise RejectedError("a server announces its own key", code="rejected_unauthorised")
    context.state.put(ZSK_VIEW, author.server_id, {"key": key})


class _Keys:
    """Takes DNSKEY sets."""

    def __init__(self, verify: Verify) -> None:
        self._verify = verify

    def apply(self, context: FoldContext, body: dict[str, Any]) -> None:
        if context.record.actor not in context.root_keys:
            raise RejectedError(
                "the root says which keys the zone has", code="rejected_unauthorised"
            )
        try:
            wire = msgspec.convert(body, KeysWire)
        except msgspec.ValidationError as error:
            raise InputError(f"{KEYS_KIND}: {error}") from error
        if wire.zsks != sorted(set(wire.zsks)) or wire.ksk in wire.zsks:
            raise InputError("keys stand in order, each once")
        if not 0 < wire.expiration - wire.inception <= MAX_LIFETIME_S:
            raise InputError("a signature begins before it ends, and lasts 60 days at most")
        signature = b64u_decode(wire.signature)
        if len(signature) != SIGNATURE_BYTES:
            raise InputError("a signature has 64 bytes")
        apex = apex_of(context.state)
        if not self._verify(parse_key(wire.ksk), wire.signed(apex), signature):
            raise RejectedError("the keys are not signed by that one", code="sig_invalid")
        context.state.put(VIEW, SET_KEY, body)


def appliers(verify: Verify) -> Appliers:
    """Return this view's kinds."""
    return {ZSK_KIND: _zsk, KEYS_KIND: _Keys(verify).apply}
