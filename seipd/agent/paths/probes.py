"""What two endpoints ask each other to find a way: boxed between their WireGuard keys. Pure.

    0        4      5                 37          61                            105
    +--------+------+-----------------+-----------+------------------------------+
    | "seiP" | type | sender's key 32 | nonce 24  | box (28 bytes, 16 of tag)    |
    +--------+------+-----------------+-----------+------------------------------+
    box = counter u64 | flags u8 | family u8 (0, 4, 6) | address 16 | port u16

PING (1) says nothing of addresses, PONG (2) repeats the ping's counter and says from where that
came. Both have the same size, so an answer is never larger than its question. Flags: 1 the tunnel
to the other is up, 2 it carries traffic. The sender's key is looked up before anything is computed,
and all before the box is authenticated with it, so neither can a box be turned back on its sender.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.base.crypto.aead import TAG_BYTES, xchacha20_decrypt, xchacha20_encrypt
from services.base.crypto.agreement import shared_secret, x25519_public
from services.kernel.errors import WireError

if TYPE_CHECKING:
    from services.edge.wireguard.model import Endpoint

MAGIC: Final = b"seiP"
NONCE_BYTES: Final = 24

_BOX: Final = struct.Struct("!QBB16sH")
_HEAD_BYTES: Final = 37
_WHOLE_BYTES: Final = _HEAD_BYTES + NONCE_BYTES + _BOX.size + TAG_BYTES
_UP: Final = 1
_CARRIES: Final = 2


class ProbeKind(enum.IntEnum):
    """A question, or its answer."""

    PING = 1
    PONG = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One datagram; ``observed`` is where the ping came from, in a pong alone."""

    kind: ProbeKind
    counter: int
    is_up: bool = False
    is_carrying: bool = False
    observed: Endpoint | None = None


def probe_to(
    address: Endpoint, kind: ProbeKind, counter: int, *, is_up: bool, is_carrying: bool
) -> Probe:
    """Return one that goes to an address; a pong says that its ping came from there."""
    return Probe(
        kind=kind,
        counter=counter,
        is_up=is_up,
        is_carrying=is_carrying,
        observed=address if kind is ProbeKind.PONG else None,
    )


class UnknownSenderError(WireError):
    """The sender is none of those that we talk to."""

    default_code = "unknown_sender"


class ProbeBox:
    """Boxes and opens probes for the peers that are known."""

    def __init__(self, private_key: bytes) -> None:
        self._private_key = private_key
        self.own = x25519_public(private_key)
        self._keys: dict[bytes, bytes] = {}

    def know(self, peer: bytes) -> None:
        """Talk to this one from now on.

        Raises:
            InputError: ``bad_key``.
        """
        if peer not in self._keys:
            self._keys[peer] = _box_key(self._private_key, self.own, peer)

    def forget(self, peer: bytes) -> None:
        """Talk to this one no more."""
        self._keys.pop(peer, None)

    def encode(self, peer: bytes, probe: Probe, nonce: bytes) -> bytes:
        """Return the datagram for a peer that is known; no nonce is ever used twice."""
        head = MAGIC + bytes([probe.kind]) + self.own
        family, host, port = _packed(probe.observed)
        flags = _UP * probe.is_up | _CARRIES * probe.is_carrying
        box = _BOX.pack(probe.counter, flags, family, host, port)
        return head + nonce + xchacha20_encrypt(self._keys[peer], nonce, box, head)

    def decode(self, data: bytes) -> tuple[bytes, Probe]:
        """Return the sender's key and what it says.

        Raises:
            UnknownSenderError: the sender is not known.
            WireError: not such a datagram, or not of that sender to us.
        """
        if len(data) != _WHOLE_BYTES or data[:4] != MAGIC:
            raise WireError("not a probe")
        head, nonce, box = (
            data[:_HEAD_BYTES],
            data[_HEAD_BYTES:][:NONCE_BYTES],
            data[_HEAD_BYTES + NONCE_BYTES :],
        )
        peer = head[5:]
        key = self._keys.get(peer)
        if key is None:
            raise UnknownSenderError("a probe of somebody unknown")
        counter, flags, family, host, port = _BOX.unpack(xchacha20_decrypt(key, nonce, box, head))
        try:
            kind = ProbeKind(data[4])
            observed = _unpacked(family, host, port)
        except ValueError as error:
            raise WireError("a probe of another form") from error
        if flags & ~(_UP | _CARRIES) or (observed is None) != (kind is ProbeKind.PING):
            raise WireError("a probe of another form")
        probe = Probe(
            kind=kind,
            counter=counter,
            is_up=bool(flags & _UP),
            is_carrying=bool(flags & _CARRIES),
            observed=observed,
        )
        return peer, probe


def _box_key(private_key: bytes, own: bytes, peer: bytes) -> bytes:
    both = b"".join(sorted((own, peer)))
    secret = shared_secret(private_key, peer)
    return hashlib.blake2b(both, digest_size=32, key=secret, person=b"seipd/probe/v1").digest()


def _packed(address: Endpoint | None) -> tuple[int, bytes, int]:
    if address is None:
        return 0, bytes(16), 0
    host = ipaddress.ip_address(address[0])
    return host.version, host.packed.ljust(16, b"\0"), address[1]


def _unpacked(family: int, host: bytes, port: int) -> Endpoint | None:
    length = {0: 0, 4: 4, 6: 16}.get(family)
    if length is None or any(host[length:]) or bool(family) != bool(port):
        raise ValueError("not an address and a port")
    return (str(ipaddress.ip_address(host[:length])), port) if length else None
