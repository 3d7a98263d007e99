"""Datagrams of our own by the port that WireGuard listens on.

A NAT's mapping belongs to a port, so what opens and measures the way of WireGuard's packets has to
leave by the same one, and the kernel gives a port to one program only. A raw socket beside it
sends with that source port, and is shown a copy of what arrives there. By the first bytes the
kernel's filter picks out what is ours; WireGuard drops it as no type of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import enum
import ipaddress
import logging
import socket
import struct
from typing import TYPE_CHECKING, Final

from services.kernel.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.runtime.udp import Address

    OnDatagram = Callable[[bytes, Address], None]

logger = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES: Final = 1200
BATCH: Final = 64

_MAX_PACKET_BYTES: Final = 2048
_UDP: Final = struct.Struct("!HHHH")
_PROBE: Final = b"seiP"
_RELAY: Final = b"seiR"
_COOKIE: Final = b"\x21\x12\xa4\x42"

# Of Linux, not named by Python's socket module.
_SO_ATTACH_FILTER: Final = 26
_IP_PKTINFO: Final = 8
_IPV6_CHECKSUM: Final = 7
_ANCILLARY_BYTES: Final = 128

# Classic BPF: struct sock_filter {code, jump if true, jump if false, k}.
_LOAD_HALF, _LOAD_WORD = 0x48, 0x40  # relative to X
_HEADER_TO_X: Final = 0xB1  # X = 4 * (the low half of byte k), the length of an IPv4 header
_ZERO_TO_X: Final = 0x01
_JUMP_EQUAL: Final = 0x15
_RETURN: Final = 0x06


class Kind(enum.Enum):
    """Whom a datagram is for."""

    PROBE = "probe"
    RELAY = "relay"
    STUN = "stun"


class RawPort:
    """Sends from WireGuard's port, and hands on what came there for others than WireGuard."""

    def __init__(self, *, inner: Collection[str], mark: int = 0) -> None:
        """Prepare; nothing is opened.

        Args:
            inner: this machine's tunnel addresses.
            mark: what the datagrams carry, where routes go by that.
        """
        self._mark = mark
        # What comes out of the tunnel to our address there was carried by a peer: it says nothing
        # of ways through the world.
        self._inner = frozenset(inner)
        self._listeners: dict[Kind, OnDatagram] = {}
        self._sockets: dict[int, socket.socket] = {}
        self.port = 0
        self.dropped_count = 0
        self.failed_count = 0

    def attach(self, kind: Kind, listener: OnDatagram) -> None:
        """Have the datagrams of a kind from now on."""
        self._listeners[kind] = listener

    def open(self, port: int) -> None:
        """Begin, at the port that WireGuard listens on; IPv6 where this machine has it.

        Raises:
            UnavailableError: ``no_raw_socket``: this program may open none.
        """
        self.close()
        loop = asyncio.get_running_loop()
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                sock = _raw_socket(family, port, self._mark)
            except PermissionError as error:
                self.close()
                raise UnavailableError(
                    "no raw socket: other endpoints can't be reached directly",
                    code="no_raw_socket",
                    mend="run as root, or give the service CAP_NET_RAW",
                ) from error
            except OSError as error:
                logger.info("no raw socket of family %d: %s", family, error)
                continue
            self._sockets[family] = sock
            loop.add_reader(sock.fileno(), self._drain, sock)
        self.port = port

    def close(self) -> None:
        """Stop; may be called twice."""
        sockets, self._sockets, self.port = self._sockets, {}, 0
        for sock in sockets.values():
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def send(self, data: bytes, address: Address) -> None:
        """Send one datagram, or drop it.

        Raises:
            InputError: it is longer than 1,200 bytes.
        """
        if len(data) > MAX_PAYLOAD_BYTES:
            raise InputError(f"a datagram has at most {MAX_PAYLOAD_BYTES} bytes")
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = self._sockets.get(family)
        if sock is None:
            self.dropped_count += 1
            return
        try:
            if family == socket.AF_INET6:
                # The kernel fills in this family's checksum.
                sock.sendto(
                    _UDP.pack(self.port, address[1], 8 + len(data), 0) + data, (address[0], 0)
                )
            else:
                self._send4(sock, data, address)
        except BlockingIOError:
            self.dropped_count += 1
        except OSError as error:
            self.failed_count += 1
            logger.debug("a datagram to %s did not go: %s", address, error)

    def _send4(self, sock: socket.socket, data: bytes, address: Address) -> None:
        source = _source_towards(address, self._mark)
        segment = _segment4(source, socket.inet_aton(address[0]), self.port, address[1], data)
        info = bytes(4) + source + bytes(4)
        sock.sendmsg([segment], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, (address[0], 0))

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            if self._sockets.get(sock.family) is not sock:
                return
            try:
                packet, ancillary, _, address = sock.recvmsg(_MAX_PACKET_BYTES, _ANCILLARY_BYTES)
            except OSError:
                return
            is_v4 = sock.family == socket.AF_INET
            to = _destination4(packet) if is_v4 else _destination6(ancillary)
            segment = packet[4 * (packet[0] & 0xF) :] if is_v4 else packet
            if to in self._inner or len(segment) < _UDP.size:
                continue
            self._hand_on(segment, address[0].partition("%")[0])

    def _hand_on(self, segment: bytes, host: str) -> None:
        source_port, _, length, _ = _UDP.unpack_from(segment)
        data = segment[_UDP.size : length]
        kind = kind_of(data)
        listener = self._listeners.get(kind) if kind is not None else None
        if listener is not None and source_port:
            listener(data, (host, source_port))


def kind_of(data: bytes) -> Kind | None:
    """Tell by its first bytes whom a datagram is for; None: for none of us."""
    if data[:4] == _PROBE:
        return Kind.PROBE
    if data[:4] == _RELAY:
        return Kind.RELAY
    if data[4:8] == _COOKIE and data[0] < 0x40:
        return Kind.STUN
    return None


def _raw_socket(family: socket.AddressFamily, port: int, mark: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_UDP)
    try:
        sock.setblocking(False)
        # Before anything else, so that hardly a datagram of others gets in; _hand_on looks again.
        _attach_filter(sock, family, port)
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, 6)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    except OSError:
        sock.close()
        raise
    return sock


def _attach_filter(sock: socket.socket, family: socket.AddressFamily, port: int) -> None:
    """Have the kernel keep only datagrams to our port that begin as ours do.

    An IPv4 raw socket is shown packets from the IP header on, an IPv6 one from the UDP header on.
    """
    probe, relay, cookie = (int.from_bytes(one, "big") for one in (_PROBE, _RELAY, _COOKIE))
    to_x = (_HEADER_TO_X, 0, 0, 0) if family == socket.AF_INET else (_ZERO_TO_X, 0, 0, 0)
    steps = [
        to_x,
        (_LOAD_HALF, 0, 0, 2),
        (_JUMP_EQUAL, 0, 6, port),
        (_LOAD_WORD, 0, 0, 8),
        (_JUMP_EQUAL, 3, 0, probe),
        (_JUMP_EQUAL, 2, 0, relay),
        (_LOAD_WORD, 0, 0, 12),
        (_JUMP_EQUAL, 0, 1, cookie),
        (_RETURN, 0, 0, 0xFFFF),
        (_RETURN, 0, 0, 0),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(steps), ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _source_towards(address: Address, mark: int) -> bytes:
    """Return the address from which this machine sends to another, as routes say now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.connect(address)
        return socket.inet_aton(sock.getsockname()[0])


def _segment4(source: bytes, to: bytes, source_port: int, port: int, data: bytes) -> bytes:
    """Return a UDP segment with the checksum of RFC 768."""
    length = _UDP.size + len(data)
    pseudo = source + to + struct.pack("!BBH", 0, socket.IPPROTO_UDP, length)
    whole = pseudo + _UDP.pack(source_port, port, length, 0) + data
    checksum = 0xFFFF ^ _ones_sum(whole)
    return _UDP.pack(source_port, port, length, checksum or 0xFFFF) + data


def _ones_sum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _destination4(packet: bytes) -> str:
    return str(ipaddress.IPv4Address(packet[16:20]))


def _destination6(ancillary: list[tuple[int, int, bytes]]) -> str:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return str(ipaddress.IPv6Address(data[:16]))
    return ""
