r"""Where servers are: facts that each signs about itself, newest counter wins. Pure.

    Ed25519 signature (64) || msgpack [key, host, gossip port, HTTPS port, WireGuard port, region,
                                       counter, issued, expires]   (times in ms of UTC)
    signed: "seipd/address/v1\0" || mesh id (32) || the msgpack bytes

A fact is soft: it is gossiped until it expires and kept after that only as a place to try.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from services.base.crypto.signatures import verify_or_raise
from services.kernel.errors import InputError, WireError
from services.kernel.ids import KEY_BYTES, SIGNATURE_BYTES, parse_label, server_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from services.base.crypto.signatures import Signer

MAX_FACT_BYTES: Final = 320
MAX_SKEW_MS: Final = 300_000
LIFETIME_MS: Final = 7 * 86_400_000
MAX_LIFETIME_MS: Final = 30 * 86_400_000
RENEW_MS: Final = 86_400_000
_PURPOSE: Final = b"seipd/address/v1\0"

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]


class _Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    host: _Text
    gossip_port: _Port
    http_port: _Port
    wireguard_port: _Port
    region: _Text
    counter: _Time
    issued_ms: _Time
    expires_ms: _Time


_DECODER: Final = msgspec.msgpack.Decoder(_Wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFact:
    """One server's word on where it is reached."""

    key: bytes
    host: str
    gossip_port: int
    http_port: int
    wireguard_port: int
    region: str
    counter: int
    issued_ms: int
    expires_ms: int
    encoded: bytes = b""

    @property
    def server_id(self) -> str:
        """The server that signed it."""
        return server_id_of(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """What this server says of itself; the gossip port is filled in by gossip."""

    host: str
    http_port: int
    wireguard_port: int
    region: str


def check_host(host: str) -> str:
    """Check the address of a server: an IP address that one host can have.

    Raises:
        InputError: a name, another spelling, or an address of no host.
    """
    try:
        address = ip_address(host)
    except ValueError as error:
        raise InputError(f"{host[:64]!r} is not an IP address") from error
    if str(address) != host or address.is_multicast or address.is_unspecified:
        raise InputError(f"{host} is no server's address")
    if isinstance(address, IPv4Address) and int(address) >> 28 == 15:
        raise InputError(f"{host} is no server's address")
    return host


def sign_fact(
    signer: Signer,
    mesh_id: bytes,
    advertisement: Advertisement,
    *,
    gossip_port: int,
    counter: int,
    now_ms: int,
) -> AddressFact:
    """Return a new fact about the signer.

    Raises:
        InputError: a host that is no address, a port that is none, or a region that is no label.
    """
    fields = [
        signer.public_key,
        check_host(advertisement.host),
        gossip_port,
        advertisement.http_port,
        advertisement.wireguard_port,
        parse_label(advertisement.region),
        counter,
        now_ms,
        now_ms + LIFETIME_MS,
    ]
    try:
        body = msgspec.msgpack.encode(msgspec.convert(fields, _Wire))
    except msgspec.ValidationError as error:
        raise InputError(f"address fact: {error}") from error
    encoded = signer.sign(_PURPOSE + mesh_id + body) + body
    return decode_fact(encoded, mesh_id)


def decode_fact(data: bytes, mesh_id: bytes) -> AddressFact:
    """Parse a fact and check its signature.

    Raises:
        WireError: malformed, or in another spelling than ours.
        BadSignatureError: not signed by the server that it is about.
    """
    fact = _parse(data)
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    verify_or_raise(fact.key, _PURPOSE + mesh_id + body, signature, what="an address fact")
    return fact


def _parse(data: bytes) -> AddressFact:
    if not SIGNATURE_BYTES < len(data) <= MAX_FACT_BYTES:
        raise WireError("not an address fact")
    body = data[SIGNATURE_BYTES:]
    try:
        wire = _DECODER.decode(body)
        check_host(wire.host)
        parse_label(wire.region)
    except (msgspec.DecodeError, ValueError, InputError) as error:
        raise WireError("not an address fact") from error
    if msgspec.msgpack.encode(wire) != body:
        raise WireError("an address fact in another spelling than ours", code="non_canonical")
    lifetime_ms = wire.expires_ms - wire.issued_ms
    if not 0 < lifetime_ms <= MAX_LIFETIME_MS:
        raise WireError("an address fact holds for 30 days at most")
    return AddressFact(encoded=data, **msgspec.structs.asdict(wire))


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """A fact that is news, and whether the place of gossip is."""

    fact: AddressFact
    moved: bool


class AddressBook:
    """The newest fact of each server of the roster."""

    def __init__(self, *, mesh_id: bytes, key_of: Callable[[str], bytes | None]) -> None:
        self._mesh_id = mesh_id
        self._key_of = key_of
        self._facts: dict[str, AddressFact] = {}

    def learn(self, data: bytes, *, now_ms: int, stored: bool = False) -> Learnt | None:
        """Take a fact; return it if it is news. A ``stored`` one may have expired.

        Raises:
            WireError: malformed, of a server that is not in the roster, expired or of the future.
            BadSignatureError: not signed by the server that it is about.
        """
        fact = _parse(data)
        server_id = fact.server_id
        if self._key_of(server_id) != fact.key:
            raise WireError("an address fact of a stranger", code="unknown_server")
        known = self._facts.get(server_id)
        if known is not None and fact.counter <= known.counter:
            return None
        if fact.issued_ms > now_ms + MAX_SKEW_MS or (fact.expires_ms <= now_ms and not stored):
            raise WireError("an address fact that does not hold now", code="clock_skew")
        fact = decode_fact(data, self._mesh_id)
        self._facts[server_id] = fact
        moved = known is None or (known.host, known.gossip_port) != (fact.host, fact.gossip_port)
        return Learnt(fact=fact, moved=moved)

    def fact(self, server_id: str) -> AddressFact | None:
        """Return the newest fact of a server, expired or not."""
        return self._facts.get(server_id)

    def valid(self, now_ms: int) -> Mapping[str, AddressFact]:
        """Return the facts that hold now, by server."""
        return {name: one for name, one in self._facts.items() if one.expires_ms > now_ms}

    def all(self) -> Iterable[AddressFact]:
        """Return everything that is worth keeping over a restart."""
        return tuple(self._facts.values())

    def keep_only(self, servers: Mapping[str, bytes]) -> None:
        """Forget the servers that are no longer in the roster."""
        for server_id in [name for name in self._facts if name not in servers]:
            del self._facts[server_id]
