"""Changes and readings of a kernel device as generic netlink attributes (pure).

pyroute2's own `WireGuard.set` carries one peer a message; these carry many. An attribute's length
has 16 bits, so a message holds a bounded number of allowed IPs and a longer list goes on in the
next one.
"""

from __future__ import annotations

import base64
import socket
from typing import TYPE_CHECKING, Any

from services.edge.wireguard.model import DeviceSnapshot, PeerStatus, canonical_prefix
from services.kernel.errors import InputError, WireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from services.edge.wireguard.model import Endpoint, PeerChanges, PeerUpsert

# A peer without allowed IPs takes up to 140 bytes, an allowed IP 44: far under 64 KiB together.
MAX_UNITS_PER_MESSAGE = 400
_UNITS_PER_PEER = 4

_REMOVE_ME = 0x1
_REPLACE_ALLOWED_IPS = 0x2
_NO_KEY = base64.b64encode(bytes(32)).decode()

Attributes = list[list[Any]]


def set_messages(changes: PeerChanges) -> Iterator[list[dict[str, Attributes]]]:
    """Yield the peers of one message after the other, in the order they must be sent."""
    batch: list[dict[str, Attributes]] = []
    used = 0
    for attributes, units in _parts(changes):
        if used + units > MAX_UNITS_PER_MESSAGE:
            yield batch
            batch, used = [], 0
        batch.append({"attrs": attributes})
        used += units
    if batch:
        yield batch


def snapshot(messages: Iterable[Any]) -> DeviceSnapshot:
    """Merge the messages of one dump: a peer with many allowed IPs may go over several.

    Raises:
        WireError: an attribute that is not what the kernel's header says.
    """
    public_key, listen_port = None, 0
    drafts: dict[bytes, _Draft] = {}
    for message in messages:
        key = message.get_attr("WGDEVICE_A_PUBLIC_KEY")
        public_key = _key(key) if key is not None else public_key
        listen_port = message.get_attr("WGDEVICE_A_LISTEN_PORT") or listen_port
        for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
            key = _key(peer.get_attr("WGPEER_A_PUBLIC_KEY"))
            drafts.setdefault(key, _Draft(key)).take(peer)
    return DeviceSnapshot(
        public_key=public_key,
        listen_port=listen_port,
        peers={key: draft.finish() for key, draft in drafts.items()},
    )


class _Draft:
    """A peer while the messages that tell of it are merged."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key
        self._endpoint: Endpoint | None = None
        self._allowed_ips: set[str] = set()
        self._numbers = {"keepalive": 0, "handshake": 0, "rx": 0, "tx": 0}
        self._preshared_key: bytes | None = None

    def take(self, peer: Any) -> None:  # noqa: ANN401 (pyroute2 has no types)
        for allowed in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ():
            self._allowed_ips.add(_prefix(allowed["addr"]))
        if (endpoint := peer.get_attr("WGPEER_A_ENDPOINT")) is not None:
            self._endpoint = (str(endpoint["addr"]), int(endpoint["port"]))
        if (handshake := peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")) is not None:
            self._numbers["handshake"] = int(handshake["tv_sec"])
        for name, attribute in (
            ("keepalive", "WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL"),
            ("rx", "WGPEER_A_RX_BYTES"),
            ("tx", "WGPEER_A_TX_BYTES"),
        ):
            if (number := peer.get_attr(attribute)) is not None:
                self._numbers[name] = int(number)
        if (secret := peer.get_attr("WGPEER_A_PRESHARED_KEY")) is not None:
            self._preshared_key = None if _key(secret) == bytes(32) else _key(secret)

    def finish(self) -> PeerStatus:
        return PeerStatus(
            public_key=self._public_key,
            endpoint=self._endpoint,
            allowed_ips=tuple(sorted(self._allowed_ips)),
            keepalive_seconds=self._numbers["keepalive"],
            preshared_key=self._preshared_key,
            last_handshake_s=self._numbers["handshake"],
            rx_bytes=self._numbers["rx"],
            tx_bytes=self._numbers["tx"],
        )


def _parts(changes: PeerChanges) -> Iterator[tuple[Attributes, int]]:
    for key in changes.remove:
        yield (
            [["WGPEER_A_PUBLIC_KEY", _text(key)], ["WGPEER_A_FLAGS", _REMOVE_ME]],
            _UNITS_PER_PEER,
        )
    room = MAX_UNITS_PER_MESSAGE - _UNITS_PER_PEER
    for change in changes.upsert:
        for start in range(0, max(len(change.allowed_ips), 1), room):
            prefixes = change.allowed_ips[start : start + room]
            first = start == 0
            last = start + room >= len(change.allowed_ips)
            yield (
                _attributes(change, prefixes, first=first, last=last),
                _UNITS_PER_PEER + len(prefixes),
            )


def _attributes(
    change: PeerUpsert, prefixes: tuple[str, ...], *, first: bool, last: bool
) -> Attributes:
    attributes: Attributes = [["WGPEER_A_PUBLIC_KEY", _text(change.public_key)]]
    if first:
        if change.set_preshared_key:
            psk = change.preshared_key
            attributes.append(["WGPEER_A_PRESHARED_KEY", _text(psk) if psk else _NO_KEY])
        if change.endpoint is not None:
            host, port = change.endpoint
            attributes.append(["WGPEER_A_ENDPOINT", {"addr": host, "port": port}])
        flags = _REPLACE_ALLOWED_IPS if change.replace_allowed_ips else 0
        attributes.append(["WGPEER_A_FLAGS", flags])
    attributes.append(["WGPEER_A_ALLOWEDIPS", [_allowed(prefix) for prefix in prefixes]])
    if last and change.keepalive_seconds is not None:
        attributes.append(["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", change.keepalive_seconds])
    return attributes


def _allowed(prefix: str) -> dict[str, Attributes]:
    address, _, length = prefix.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {
        "attrs": [
            ["WGALLOWEDIP_A_FAMILY", family],
            ["WGALLOWEDIP_A_IPADDR", socket.inet_pton(family, address)],
            ["WGALLOWEDIP_A_CIDR_MASK", int(length)],
        ]
    }


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")


def _key(text: bytes) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise WireError("a key of the kernel's is not base64") from error
    if len(key) != 32:
        raise WireError("a key of the kernel's has not 32 bytes")
    return key


def _prefix(text: str) -> str:
    try:
        return canonical_prefix(text)
    except InputError as error:
        raise WireError(str(error)) from error
