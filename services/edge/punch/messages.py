"""What endpoints and servers say to each other on the rendezvous port: msgpack arrays, bounded.

    endpoint to its server
      1 HERE      [counter, [candidate...] or nil, is_symmetric, is_fresh, policy, peers]
      3 CALL      [counter, peer, [excluded relay...]]
      7 MET       [peer, serial]
    server to its endpoint
      2 KNOWN     [counter, observed host, observed port, policy, peers]
      4 MEET      [key, peer, [candidate...], is_symmetric, [offer...], serial]
      5 NONE      [peer, why]
      6 CHANGED   [what, version]
    both ways, and on by the server to the other endpoint
      8 SIGNAL    [counter, peer, code]
     11 SIGNALLED [counter, peer]
    endpoint to endpoint, through their tunnel
      9 ECHO      [counter]
     10 ECHOED    [counter]
    server to server, over the backbone
     16 PASS      [serial, caller, peer, [candidate...], is_symmetric, observed, [offer...]]
     17 PASSED    [serial, caller, peer, [candidate...], is_symmetric, observed]
     18 REFUSED   [serial, caller, peer, why]
     19 CARRY     [sender, receiver, counter, code]
     20 CARRIED   [sender, receiver, counter]

    candidate = [kind, host, port]
    offer     = [relay, host4, host6, port, box key, ticket]

An endpoint is named by the four bytes of its tunnel address, a host by the four or sixteen of its
own; an empty host means that there is none. The first byte lies between 0x90 and 0x9f, so no
datagram is also one of STUN.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, ip_address
from typing import Annotated, Final

import msgspec

from services.kernel.errors import InputError, WireError

PORT: Final = 51941
MAX_DATAGRAM_BYTES: Final = 1200
MAX_CANDIDATES: Final = 16
MAX_EXCLUDED: Final = 4
MAX_OFFERS: Final = 2
MAX_TICKET_BYTES: Final = 320
MAX_NUMBER: Final = 2**53 - 1


class CandidateKind(IntEnum):
    """Where a candidate is from."""

    LOCAL = 0
    STUN = 1
    PORT_MAPPED = 2
    OBSERVED = 3
    """Added by the server: where the endpoint's tunnel comes from."""


class Why(IntEnum):
    """Why there is no meeting."""

    UNKNOWN = 0
    """There is no such endpoint."""
    AWAY = 1
    """It is not running, wants to meet nobody, or is a stock WireGuard client."""
    FORBIDDEN = 2
    """The policy lets the two not reach each other."""
    BUSY = 3
    """Too many calls."""
    UNREACHABLE = 4
    """No answer in time, of the own server or of the other's."""


class What(IntEnum):
    """What changed."""

    POLICY = 0
    PEERS = 1


class SignalCode(IntEnum):
    """What one endpoint lets another know."""

    FALL_BACK = 0
    """Packets go over the server again."""
    RESTARTED = 1
    """What was known of paths to the sender counts no more."""
    UP = 2
    """The sender has a tunnel to the receiver, and waits for the same to be said."""


_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Tunnel = Annotated[bytes, msgspec.Meta(min_length=4, max_length=4)]
_Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Host = Annotated[bytes, msgspec.Meta(max_length=16)]
_Host4 = Annotated[bytes, msgspec.Meta(max_length=4)]
_Relay = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Ticket = Annotated[bytes, msgspec.Meta(max_length=MAX_TICKET_BYTES)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Common shape of all messages."""


class Candidate(_Message, frozen=True):
    """One address at which an endpoint may be reached."""

    kind: CandidateKind
    host: _Host
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]

    @property
    def endpoint(self) -> tuple[str, int]:
        """The address as WireGuard wants it."""
        return host_text(self.host), self.port


class RelayOffer(_Message, frozen=True):
    """A relay that would carry for the two, and the ticket that it asks for."""

    relay_id: _Relay
    host4: _Host4
    host6: _Host
    control_port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    box_key: _Key
    ticket: _Ticket


_Candidates = Annotated[tuple[Candidate, ...], msgspec.Meta(max_length=MAX_CANDIDATES)]
_Seen = Annotated[tuple[Candidate, ...], msgspec.Meta(max_length=MAX_CANDIDATES + 1)]
_Offers = Annotated[tuple[RelayOffer, ...], msgspec.Meta(max_length=MAX_OFFERS)]


class Here(_Message, frozen=True, tag=1):
    """The sender is here; its candidates, and what it has heard of changes."""

    counter: _Number
    candidates: _Candidates | None
    """None: it wants to meet nobody, all shall go over the server."""
    is_symmetric: bool
    """Its router gives each destination another port: an observed port is of no use to others."""
    is_fresh: bool
    """It started, or its network is another one: what was known of it before counts no more."""
    policy_version: _Number
    peers_version: _Number


class Known(_Message, frozen=True, tag=2):
    """The answer to a HERE; again without being asked, where the observed address is another."""

    counter: _Number
    observed_host: _Host
    observed_port: _Port
    policy_version: _Number
    peers_version: _Number

    @property
    def observed(self) -> tuple[str, int] | None:
        """Where the server sees the tunnel come from, if it knows by now."""
        return (host_text(self.observed_host), self.observed_port) if self.observed_host else None


class Call(_Message, frozen=True, tag=3):
    """A wish to meet another endpoint."""

    counter: _Number
    peer: _Tunnel
    excluded: Annotated[tuple[_Relay, ...], msgspec.Meta(max_length=MAX_EXCLUDED)]
    """Relays that did not work."""


class Meet(_Message, frozen=True, tag=4):
    """Another endpoint, and where it may be reached now; sent to both, until each says MET."""

    key: _Key
    peer: _Tunnel
    candidates: _Seen
    is_symmetric: bool
    offers: _Offers
    serial: _Number

    @property
    def peer_address(self) -> str:
        """The tunnel address of the other endpoint."""
        return host_text(self.peer)


class Nothing(_Message, frozen=True, tag=5):
    """There is no meeting."""

    peer: _Tunnel
    why: Why


class Changed(_Message, frozen=True, tag=6):
    """Something is to be fetched anew; sent until a HERE shows the version."""

    what: What
    version: _Number


class Met(_Message, frozen=True, tag=7):
    """A MEET arrived."""

    peer: _Tunnel
    serial: _Number


class Signal(_Message, frozen=True, tag=8):
    """A word to another endpoint; ``peer`` is the receiver on the way there, then the sender."""

    counter: _Number
    peer: _Tunnel
    code: SignalCode


class Echo(_Message, frozen=True, tag=9):
    """A question that is answered at once, for the time it takes."""

    counter: _Number


class Echoed(_Message, frozen=True, tag=10):
    """The answer to an ECHO, of the same length."""

    counter: _Number


class Signalled(_Message, frozen=True, tag=11):
    """A SIGNAL arrived; ``peer`` as there."""

    counter: _Number
    peer: _Tunnel


class Pass(_Message, frozen=True, tag=16):
    """A call of an endpoint that the sender carries, for one that the receiver carries."""

    serial: _Number
    caller: _Tunnel
    peer: _Tunnel
    candidates: _Seen
    is_symmetric: bool
    observed: _Host
    offers: _Offers


class Passed(_Message, frozen=True, tag=17):
    """The endpoint that was called was told; where it may be reached."""

    serial: _Number
    caller: _Tunnel
    peer: _Tunnel
    candidates: _Seen
    is_symmetric: bool
    observed: _Host


class Refused(_Message, frozen=True, tag=18):
    """The endpoint that was called is not told."""

    serial: _Number
    caller: _Tunnel
    peer: _Tunnel
    why: Why


class Carry(_Message, frozen=True, tag=19):
    """A SIGNAL on its way between servers."""

    sender: _Tunnel
    receiver: _Tunnel
    counter: _Number
    code: SignalCode


class Carried(_Message, frozen=True, tag=20):
    """A SIGNALLED on its way between servers; ``sender`` is whose SIGNAL it was."""

    sender: _Tunnel
    receiver: _Tunnel
    counter: _Number


FromEndpoint = Here | Call | Met | Signal | Signalled
ToEndpoint = Known | Meet | Nothing | Changed | Signal | Signalled
Between = Echo | Echoed
FromServer = Pass | Passed | Refused | Carry | Carried
Message = FromEndpoint | ToEndpoint | Between | FromServer

_DECODER: Final = msgspec.msgpack.Decoder(Message)
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Return the datagram of a message.

    Raises:
        WireError: ``too_large``.
    """
    data = _ENCODER.encode(message)
    if len(data) > MAX_DATAGRAM_BYTES:
        raise WireError(
            f"a datagram has at most {MAX_DATAGRAM_BYTES} bytes, this has {len(data)}",
            code="too_large",
        )
    return data


def packed(message: Message) -> bytes:
    """Return the bytes of a message, however many they are."""
    return _ENCODER.encode(message)


def decode(data: bytes) -> Message:
    """Parse a datagram.

    Raises:
        WireError: anything that is not exactly one message, in the one spelling that we write.
    """
    if len(data) > MAX_DATAGRAM_BYTES:
        raise WireError(f"a datagram has at most {MAX_DATAGRAM_BYTES} bytes", code="too_large")
    try:
        message: Message = _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError("not a message of this protocol") from error
    if _ENCODER.encode(message) != data:
        raise WireError("a message in another spelling than ours", code="non_canonical")
    if not all(len(host) in sizes for host, sizes in _hosts_in(message)):
        raise WireError("a host has four bytes or sixteen")
    return message


def candidate(kind: CandidateKind, host: str, port: int) -> Candidate:
    """Return a candidate.

    Raises:
        InputError: no address, one with a scope, or no port.
    """
    if not 0 < port < 65536:
        raise InputError(f"{port} is not a port")
    return Candidate(kind=kind, host=host_bytes(host), port=port)


def host_bytes(host: str) -> bytes:
    """Return the bytes that stand for a host.

    Raises:
        InputError: ``bad_address``.
    """
    try:
        address = ip_address(host)
    except ValueError as error:
        raise InputError(f"{host[:64]!r} is not an IP address", code="bad_address") from error
    if "%" in host:
        raise InputError("an address with a scope has no place here", code="bad_address")
    return address.packed


def host_text(host: bytes) -> str:
    """Return the text of a host of a message; of none, an empty one."""
    return str(ip_address(host)) if host else ""


def tunnel_bytes(address: str) -> bytes:
    """Return the bytes that name an endpoint.

    Raises:
        InputError: ``bad_address``.
    """
    try:
        return IPv4Address(address).packed
    except ValueError as error:
        raise InputError(f"{address[:64]!r} is no tunnel address", code="bad_address") from error


_ANY: Final = (4, 16)
_OR_NONE: Final = (0, 4, 16)


def _hosts_in(message: Message) -> list[tuple[bytes, tuple[int, ...]]]:
    """Return the hosts of a message, and how many bytes each may have."""
    found: list[tuple[bytes, tuple[int, ...]]] = []
    if isinstance(message, Known):
        return [(message.observed_host, _OR_NONE)]
    if isinstance(message, Here | Meet | Pass | Passed):
        found += [(one.host, _ANY) for one in message.candidates or ()]
    if isinstance(message, Pass | Passed):
        found.append((message.observed, _OR_NONE))
    if isinstance(message, Meet | Pass):
        found += [(one.host4, (0, 4)) for one in message.offers]
        found += [(one.host6, (0, 16)) for one in message.offers]
    return found
