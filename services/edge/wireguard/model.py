"""What a WireGuard device is made of, as values.

Texts have one spelling: addresses and prefixes are what `ipaddress` prints, prefixes have no host
bits and stand sorted. Nothing here touches a device.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from services.kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY_BYTES = 32
MAX_KEEPALIVE_SECONDS = 65535
MIN_MTU = 1280
MAX_MTU = 65535
MAX_CHOSEN_MTU = 8920
"""Of jumbo frames; what wireguard-go and relays take is not much more."""

Endpoint = tuple[str, int]

_INTERFACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """What we want of one peer. No endpoint means: it comes to us, or WireGuard knows better."""

    public_key: bytes
    endpoint: Endpoint | None = None
    allowed_ips: tuple[str, ...] = ()
    keepalive_seconds: int = 0
    preshared_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_key(self.public_key)
        if self.preshared_key is not None:
            check_key(self.preshared_key)
        if self.endpoint is not None:
            check_endpoint(self.endpoint)
        if not 0 <= self.keepalive_seconds <= MAX_KEEPALIVE_SECONDS:
            raise InputError("a keepalive is 0 to 65535 seconds")
        if any(canonical_prefix(text) != text for text in self.allowed_ips) or not _is_sorted_set(
            self.allowed_ips
        ):
            raise InputError("allowed IPs are canonical prefixes, sorted, each once")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """What the device says of one peer; ``last_handshake_s`` is 0 when there was none."""

    public_key: bytes
    endpoint: Endpoint | None
    allowed_ips: tuple[str, ...]
    keepalive_seconds: int
    preshared_key: bytes | None = field(default=None, repr=False)
    last_handshake_s: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """The device as `status` tells of it."""

    interface: str
    backend: str
    public_key: bytes
    listen_port: int
    peer_count: int
    mtu: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSnapshot:
    """All that one reading of the device gives."""

    public_key: bytes | None
    listen_port: int
    peers: dict[bytes, PeerStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUpsert:
    """What is told to the device of one peer.

    ``endpoint`` and ``keepalive_seconds`` None leave what is there. A growing list of allowed IPs
    is sent without ``replace_allowed_ips``, so that no packet of the others is lost meanwhile.
    """

    public_key: bytes
    endpoint: Endpoint | None = None
    allowed_ips: tuple[str, ...] = ()
    replace_allowed_ips: bool = True
    keepalive_seconds: int | None = None
    set_preshared_key: bool = False
    preshared_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChanges:
    """One transaction: removals first, then upserts."""

    remove: tuple[bytes, ...] = ()
    upsert: tuple[PeerUpsert, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.remove or self.upsert)

    @property
    def peer_count(self) -> int:
        """How many peers this touches."""
        return len({*self.remove, *(change.public_key for change in self.upsert)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A prefix that goes into the tunnel; ``source`` is the address our own packets carry."""

    destination: str
    source: str | None = None

    def __post_init__(self) -> None:
        if canonical_prefix(self.destination) != self.destination:
            raise InputError(f"{self.destination} is not a canonical prefix")
        if self.source is not None and str(_address(self.source)) != self.source:
            raise InputError(f"{self.source} is not a canonical address")


@dataclass(frozen=True, slots=True, kw_only=True)
class SideTable:
    """Routes in a table of their own, which takes nothing from what the host reaches by itself.

    Without ``past_mark`` only packets that came in by the interface ask it. With it everything
    asks, save packets of that mark, once the main table has no word but its default route.
    """

    routes: tuple[Route, ...] = ()
    past_mark: int | None = None
    excepted: tuple[str, ...] = ()
    """What goes by the main table all the same."""
    closed: tuple[str, ...] = ()
    """What is refused while the interface is away."""

    def __post_init__(self) -> None:
        if len({route.destination for route in self.routes}) != len(self.routes):
            raise InputError("two routes to one destination")
        for text in (*self.excepted, *self.closed):
            if canonical_prefix(text) != text:
                raise InputError(f"{text} is not a canonical prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfacePlan:
    """Addresses (with their prefix length), routes and MTU of the interface.

    ``forwarding`` makes this host carry packets between peers: servers want it, endpoints do not.
    Without ``side`` no table beside the main one is looked at, without ``mtu`` that is left alone.
    """

    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    mtu: int | None = 1420
    forwarding: bool = False
    side: SideTable | None = None

    def __post_init__(self) -> None:
        for text in self.addresses:
            try:
                canonical = str(ipaddress.ip_interface(text))
            except ValueError as error:
                raise InputError(f"{text} is not an address with a prefix length") from error
            if canonical != text:
                raise InputError(f"{text} is written {canonical}")
        if len({route.destination for route in self.routes}) != len(self.routes):
            raise InputError("two routes to one destination")
        if self.mtu is not None and not MIN_MTU <= self.mtu <= MAX_MTU:
            raise InputError(f"an MTU is {MIN_MTU} to {MAX_MTU}")

    def without_ipv6(self) -> InterfacePlan:
        """Return what of it a machine without IPv6 can have; what is closed stays so."""
        side = self.side
        return replace(
            self,
            addresses=tuple(text for text in self.addresses if ":" not in text),
            routes=_of_ipv4(self.routes),
            side=side and replace(side, routes=_of_ipv4(side.routes)),
        )


def _of_ipv4(routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(route for route in routes if ":" not in route.destination)


def canonical_prefixes(texts: Iterable[str]) -> tuple[str, ...]:
    """Return prefixes in their one spelling, sorted, each once.

    Raises:
        InputError: one of them is not a prefix, or has host bits.
    """
    return tuple(sorted({canonical_prefix(text) for text in texts}))


@lru_cache(maxsize=65536)
def canonical_prefix(text: str) -> str:
    """Return one prefix in its one spelling.

    Raises:
        InputError: not a prefix, or with host bits.
    """
    if "%" in text:
        raise InputError("a prefix has no scope")
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise InputError(f"{text[:64]!r} is not an IP prefix") from error


def check_key(key: bytes) -> None:
    """Check that a key has 32 bytes.

    Raises:
        InputError: ``bad_key``.
    """
    if len(key) != KEY_BYTES:
        raise InputError(f"a key has {KEY_BYTES} bytes, this has {len(key)}", code="bad_key")


def check_endpoint(endpoint: Endpoint) -> None:
    """Check that an endpoint is an address (no name) in its one spelling, and a port.

    Raises:
        InputError: it is not.
    """
    host, port = endpoint
    if str(_address(host)) != host:
        raise InputError(f"{host} is not a canonical address")
    if not 0 < port < 65536:
        raise InputError(f"{port} is not a port")


def check_interface_name(name: str) -> None:
    """Check that the kernel and our file names take this interface name.

    Raises:
        InputError: ``bad_name``.
    """
    if not _INTERFACE_NAME.match(name):
        raise InputError(
            f"{name[:64]!r} is not an interface name: 15 letters, digits, _ . - at most",
            code="bad_name",
        )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in text:
        raise InputError("an address with a scope has no place here")
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InputError(f"{text[:64]!r} is not an IP address") from error


def _is_sorted_set(texts: tuple[str, ...]) -> bool:
    return all(left < right for left, right in itertools.pairwise(texts))
