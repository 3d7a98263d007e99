r"""The text protocol of userspace WireGuard (wireguard.com/xplatform): requests out, replies in.

    set=1\n key=value\n ... \n      ->  errno=N\n \n
    get=1\n \n                       ->  key=value\n ... errno=N\n \n

Keys are lower-case hex. A peer's lines begin with its ``public_key``; what stands before the first
belongs to the device. Lines with keys that we do not know are skipped: newer versions add some.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from services.base.crypto.agreement import x25519_public
from services.edge.wireguard.model import (
    KEY_BYTES,
    DeviceSnapshot,
    Endpoint,
    PeerStatus,
    canonical_prefix,
)
from services.kernel.errors import InputError, WireError

if TYPE_CHECKING:
    from services.edge.wireguard.model import PeerChanges, PeerUpsert

GET_REQUEST = b"get=1\n\n"
END = b"\n\n"

_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,19})\Z", re.ASCII)
_ERRNO = re.compile(r"-?(?:0|[1-9][0-9]{0,5})\Z", re.ASCII)
_HEX_KEY = re.compile(r"[0-9a-f]{64}\Z")
_NO_KEY = bytes(KEY_BYTES)


def encode_set(
    changes: PeerChanges | None = None,
    *,
    private_key: bytes | None = None,
    listen_port: int | None = None,
    fwmark: int | None = None,
) -> bytes:
    """Return one ``set`` request; the device handles its lines in this order."""
    lines = ["set=1"]
    if private_key is not None:
        lines.append(f"private_key={private_key.hex()}")
    if listen_port is not None:
        lines.append(f"listen_port={listen_port}")
    if fwmark is not None:
        lines.append(f"fwmark={fwmark}")
    if changes is not None:
        for key in changes.remove:
            lines += (f"public_key={key.hex()}", "remove=true")
        for change in changes.upsert:
            _append_upsert(lines, change)
    return ("\n".join(lines) + "\n\n").encode("ascii")


def parse_set_reply(data: bytes) -> int:
    """Return the errno of a reply to ``set``: 0, or the negative number of the system's error.

    Raises:
        WireError: anything else.
    """
    pairs = _pairs(data)
    if len(pairs) != 1 or pairs[0][0] != "errno":
        raise WireError("a reply to set is one errno")
    return _errno(pairs[0][1])


def parse_get_reply(data: bytes) -> DeviceSnapshot:
    """Parse the reply to ``get``.

    Raises:
        WireError: any other bytes, or an errno that is not 0.
    """
    pairs = _pairs(data)
    if not pairs or pairs[-1][0] != "errno":
        raise WireError("the reply has no errno at its end")
    if number := _errno(pairs[-1][1]):
        raise WireError(f"get was refused with errno {number}")
    private_key, listen_port = None, 0
    peers: dict[bytes, PeerStatus] = {}
    draft: _Draft | None = None
    for name, text in pairs[:-1]:
        if name == "public_key":
            _finish(draft, peers)
            draft = _Draft(public_key=_key(text))
        elif draft is not None:
            draft.take(name, text)
        elif name == "private_key":
            private_key = _key(text)
        elif name == "listen_port":
            listen_port = _number(text, 65535)
    _finish(draft, peers)
    has_key = private_key is not None and private_key != _NO_KEY
    return DeviceSnapshot(
        public_key=x25519_public(private_key) if private_key and has_key else None,
        listen_port=listen_port,
        peers=peers,
    )


@dataclass(slots=True)
class _Draft:
    """A peer while its lines are read."""

    public_key: bytes
    endpoint: Endpoint | None = None
    allowed_ips: list[str] | None = None
    keepalive_seconds: int = 0
    preshared_key: bytes | None = None
    last_handshake_s: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0

    def take(self, name: str, text: str) -> None:
        match name:
            case "allowed_ip":
                if self.allowed_ips is None:
                    self.allowed_ips = []
                self.allowed_ips.append(_prefix(text))
            case "endpoint":
                self.endpoint = _endpoint(text)
            case "persistent_keepalive_interval":
                self.keepalive_seconds = _number(text, 65535)
            case "preshared_key":
                key = _key(text)
                self.preshared_key = None if key == _NO_KEY else key
            case "last_handshake_time_sec":
                self.last_handshake_s = _number(text, 2**63 - 1)
            case "rx_bytes":
                self.rx_bytes = _number(text, 2**64 - 1)
            case "tx_bytes":
                self.tx_bytes = _number(text, 2**64 - 1)
            case _:
                pass

    def finish(self) -> PeerStatus:
        return PeerStatus(
            public_key=self.public_key,
            endpoint=self.endpoint,
            allowed_ips=tuple(sorted(set(self.allowed_ips or ()))),
            keepalive_seconds=self.keepalive_seconds,
            preshared_key=self.preshared_key,
            last_handshake_s=self.last_handshake_s,
            rx_bytes=self.rx_bytes,
            tx_bytes=self.tx_bytes,
        )


def _finish(draft: _Draft | None, peers: dict[bytes, PeerStatus]) -> None:
    if draft is None:
        return
    if draft.public_key in peers:
        raise WireError("one peer twice in a reply")
    peers[draft.public_key] = draft.finish()


def _append_upsert(lines: list[str], change: PeerUpsert) -> None:
    lines.append(f"public_key={change.public_key.hex()}")
    if change.set_preshared_key:
        lines.append(f"preshared_key={(change.preshared_key or _NO_KEY).hex()}")
    if change.endpoint is not None:
        host, port = change.endpoint
        lines.append(f"endpoint=[{host}]:{port}" if ":" in host else f"endpoint={host}:{port}")
    if change.replace_allowed_ips:
        lines.append("replace_allowed_ips=true")
    lines += (f"allowed_ip={prefix}" for prefix in change.allowed_ips)
    # Last: a keepalive that begins sends at once, and by then the peer must be whole.
    if change.keepalive_seconds is not None:
        lines.append(f"persistent_keepalive_interval={change.keepalive_seconds}")


def _pairs(data: bytes) -> list[tuple[str, str]]:
    if not data.endswith(END):
        raise WireError("the reply does not end with an empty line")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise WireError("the reply is not ASCII") from error
    pairs = []
    for line in text[:-2].split("\n"):
        name, sign, value = line.partition("=")
        if not sign or not name:
            raise WireError("a line of the reply is not key=value")
        pairs.append((name, value))
    return pairs


def _key(text: str) -> bytes:
    if not _HEX_KEY.match(text):
        raise WireError("a key is 64 lower-case hex digits")
    return bytes.fromhex(text)


def _number(text: str, most: int) -> int:
    if not _DECIMAL.match(text) or int(text) > most:
        raise WireError(f"{text[:24]!r} is not a number up to {most}")
    return int(text)


def _errno(text: str) -> int:
    if not _ERRNO.match(text):
        raise WireError(f"{text[:24]!r} is not an errno")
    return int(text)


def _prefix(text: str) -> str:
    try:
        return canonical_prefix(text)
    except InputError as error:
        raise WireError(str(error)) from error


@lru_cache(maxsize=65536)
def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    is_v6 = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_v6 else host)
    except ValueError as error:
        raise WireError(f"{text[:64]!r} is not an endpoint") from error
    if (address.version == 6) != is_v6:
        raise WireError(f"{text[:64]!r} is not an endpoint")
    return str(address), _number(port, 65535)
