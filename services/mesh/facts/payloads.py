"""What facts say, by kind: msgpack arrays in one spelling. All bounded. Pure.

    0 address  [host, gossip port, HTTPS port, WireGuard port, region]
    1 load     [thousandths of the CPUs, endpoints connected, version, protocol version known]
    2 state    opaque bytes, 256 at most (a witness's word on the state)
    3 latency  [[[server, ms], ...]]   round trips, smoothed, by the signer; ids in order
    4 links    [[server, ...]]         with whom the signer has a WireGuard session; in order
    5 release  [version, platform, python, measurement (32)]   what is installed there
    6 challenge [[[name, digest (32)], ...]]   what a CA will look for at _acme-challenge.<name>.
               <domain>: the digest's base64url as a TXT record; names below the mesh's domain
    7 ports    [private HTTPS, STUN, relay, DNS, hole punch]   0 for what is not served
    8 relay    [box key (32), port, IPv6 address or "", sessions, thousandths of what it can carry,
               [[relay (8), voice (8 or 0), uptime, delivery, evenness, rating or nil], ...]]
               the relay of the signer itself, port 0 where it is none; then what is told of
               relays there, in thousandths, in order: by a customer, or by the signer (no voice)
    9 address6 [host]                  the signer's IPv6 address, at the ports of kind 0

A CPU may have more to do than it can: the first number of a load goes beyond 1000.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Annotated, Final, TypeVar

import msgspec

from services.kernel.errors import InputError, WireError
from services.kernel.ids import parse_label
from services.kernel.versions import FIRST_VERSION

MAX_PAYLOAD_BYTES: Final = 512
MAX_LATENCIES: Final = 16
MAX_LATENCY_MS: Final = 60_000
MAX_LINKS: Final = 32
MAX_PERMILLE: Final = 100_000
MAX_CHALLENGES: Final = 8
MAX_RELAY_VOICES: Final = 10
MAX_PART: Final = 1000

# Where an IPv6 address holds an IPv4 one: compatible, mapped, translated (RFC 4291, 6052, 3056).
_EMBEDDING: Final = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96")))
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_PortOrNone = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
_Version = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z.+_-]{1,32}\Z")]
_Protocol = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Permille = Annotated[int, msgspec.Meta(ge=0, le=MAX_PERMILLE)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_LATENCY_MS)]
_Build = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")]
_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Name = Annotated[
    str, msgspec.Meta(max_length=190, pattern=r"\A[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){1,8}\Z")
]
_Part = Annotated[int, msgspec.Meta(ge=0, le=MAX_PART)]
_RawId = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]


class Payload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Common shape of what facts say."""


class AddressPayload(Payload, frozen=True):
    """Where a server is reached."""

    host: _Text
    gossip_port: Port
    http_port: Port
    wireguard_port: Port
    region: _Text


class LoadPayload(Payload, frozen=True):
    """How much a server has to do, and what it runs."""

    cpu_permille: _Permille
    endpoints_count: _Count
    version: _Version
    protocol: _Protocol = FIRST_VERSION
    """The newest protocol version that it knows."""


class Latency(Payload, frozen=True):
    """What a round trip to one server takes, of late."""

    server: _RawId
    round_trip_ms: _Milliseconds


class LatencyPayload(Payload, frozen=True):
    """How far other servers are from the signer."""

    latencies: Annotated[tuple[Latency, ...], msgspec.Meta(max_length=MAX_LATENCIES)]


class LinksPayload(Payload, frozen=True):
    """Some of those with whom the signer has a WireGuard session of its own."""

    servers: Annotated[tuple[_RawId, ...], msgspec.Meta(max_length=MAX_LINKS)]


class ReleasePayload(Payload, frozen=True):
    """What the signer says is installed on it."""

    version: _Version
    platform: _Build
    python: _Build
    measurement: _Digest


class Challenge(Payload, frozen=True):
    """What a CA looks for under one name."""

    name: _Name
    digest: _Digest


class ChallengePayload(Payload, frozen=True):
    """The orders for certificates that the signer has open."""

    challenges: Annotated[tuple[Challenge, ...], msgspec.Meta(max_length=MAX_CHALLENGES)]


class PortsPayload(Payload, frozen=True):
    """Where the services of a server are found that its address does not tell of."""

    private_http: _PortOrNone
    stun: _PortOrNone
    relay: _PortOrNone
    dns: _PortOrNone
    hole_punch: _PortOrNone


class RelayVoice(Payload, frozen=True):
    """What one voice says of one relay: the first bytes of its id and of the customer's digest."""

    relay: _RawId
    voice: Annotated[bytes, msgspec.Meta(max_length=8)]
    uptime: _Part
    delivery: _Part
    evenness: _Part
    rating: _Part | None


class RelayPayload(Payload, frozen=True):
    """The signer's own relay, and what it heard of others."""

    box: _Digest
    port: _PortOrNone
    host6: Annotated[str, msgspec.Meta(max_length=39)]
    sessions_count: _Count
    load_permille: _Permille
    voices: Annotated[tuple[RelayVoice, ...], msgspec.Meta(max_length=MAX_RELAY_VOICES)]


class Address6Payload(Payload, frozen=True):
    """Where a server is reached over IPv6 too, at the same ports."""

    host: _Text


P = TypeVar("P", bound=Payload)


def encode_payload(payload: Payload) -> bytes:
    """Return the bytes of what a fact says."""
    return msgspec.msgpack.encode(payload)


def decode_payload(data: bytes, shape: type[P]) -> P:
    """Parse what a fact says.

    Raises:
        WireError: malformed, out of bounds, or in another spelling than ours.
    """
    try:
        payload = msgspec.msgpack.decode(data, type=shape)
        _check(payload)
    except (msgspec.DecodeError, ValueError, RecursionError, InputError) as error:
        raise WireError("not what a fact of this kind says") from error
    if encode_payload(payload) != data:
        raise WireError("a payload in another spelling than ours", code="non_canonical")
    return payload


def check_host(host: str) -> str:
    """Check the address of a server: an IP address that one host can have.

    Raises:
        InputError: a name, another spelling, or an address of no host.
    """
    try:
        address = ip_address(host)
    except ValueError as error:
        raise InputError(f"{host[:64]!r} is not an IP address") from error
    # What stands after a percent sign, an IPv6 zone, may be anything, a line end too.
    if "%" in host or str(address) != host:
        raise InputError(f"{host[:64]!r} is no server's address")
    for one in {address, _meant(address)}:
        if one.is_multicast or one.is_unspecified:
            raise InputError(f"{host} is no server's address")
        if one.is_link_local:
            raise InputError(f"{host} means another host on each network")
        if isinstance(one, IPv4Address) and (int(one) >> 28 == 15 or int(one) >> 24 == 0):
            raise InputError(f"{host} is no server's address")
    return host


def check_host6(host: str) -> str:
    """Check the IPv6 address of a server: one that stands for no IPv4 address.

    Raises:
        InputError: a name, another spelling, or another address.
    """
    address = ip_address(check_host(host))
    if address.version != 6 or _meant(address) != address:
        raise InputError(f"{host} is no IPv6 address of a server")
    return host


def is_loopback(host: str) -> bool:
    """Say whether an address leads back to the machine that uses it, however it is written."""
    return ip_address(host).is_loopback or meant_by(host).is_loopback


def meant_by(host: str) -> IPv4Address | IPv6Address:
    """Return the address where packets go: an IPv4 address may stand in an IPv6 one."""
    return _meant(ip_address(host))


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address) and not address.is_loopback:
        if address in _SIX_TO_FOUR:
            return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
        if any(address in network for network in _EMBEDDING):
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _check(payload: Payload) -> None:
    if isinstance(payload, AddressPayload):
        check_host(payload.host)
        parse_label(payload.region)
    elif isinstance(payload, LatencyPayload):
        _check_order([one.server for one in payload.latencies])
    elif isinstance(payload, LinksPayload):
        _check_order(list(payload.servers))
    elif isinstance(payload, ChallengePayload):
        pairs = [(one.name, one.digest) for one in payload.challenges]
        if pairs != sorted(set(pairs)):
            raise InputError("challenges out of order or twice")
    elif isinstance(payload, RelayPayload):
        _check_relay(payload)
    elif isinstance(payload, Address6Payload):
        check_host6(payload.host)


def _check_relay(payload: RelayPayload) -> None:
    if payload.host6 and ip_address(check_host(payload.host6)).version != 6:
        raise InputError("that is no IPv6 address")
    if any(len(one.voice) not in (0, 8) for one in payload.voices):
        raise InputError("a voice has eight bytes, or none")
    names = [(one.relay, one.voice) for one in payload.voices]
    if names != sorted(set(names)):
        raise InputError("voices out of order or twice")


def _check_order(servers: list[bytes]) -> None:
    if servers != sorted(set(servers)):
        raise InputError("servers out of order or twice")
