"""What the root says of a server: its certificate, the newest roster change that names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from services.kernel.addr import SLICE_PREFIX, parse_address, parse_network
from services.kernel.errors import InputError
from services.kernel.ids import (
    ServerId,
    b64u_encode,
    parse_key,
    parse_label,
    parse_wireguard_key,
    server_id_of,
)

MAX_SLICES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """One server's identity key, WireGuard key, TLS authority, backbone address and slices."""

    key: bytes
    wireguard_key: bytes
    tls_key_hash: bytes
    region: str
    backbone: str
    slices: tuple[str, ...]
    epoch: int

    @property
    def server_id(self) -> ServerId:
        """The id that follows from the identity key."""
        return server_id_of(self.key)

    def value(self) -> dict[str, Any]:
        """Return the JSON object that the root signs."""
        return {
            "key": b64u_encode(self.key),
            "wireguard_key": b64u_encode(self.wireguard_key),
            "tls_key_hash": b64u_encode(self.tls_key_hash),
            "region": self.region,
            "backbone": self.backbone,
            "slices": list(self.slices),
            "epoch": self.epoch,
        }


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    wireguard_key: str
    tls_key_hash: str
    region: str
    backbone: str
    slices: list[str]
    epoch: int


def certificate_from_value(value: object) -> ServerCertificate:
    """Check the JSON of a certificate.

    Raises:
        InputError: a field is missing, unknown or not of its form.
    """
    try:
        wire = msgspec.convert(value, _Wire)
    except msgspec.ValidationError as error:
        raise InputError(f"certificate: {error}") from error
    if not 1 <= wire.epoch < 1 << 32 or not wire.slices or len(wire.slices) > MAX_SLICES:
        raise InputError(f"a certificate has an epoch from 1 and 1 to {MAX_SLICES} slices")
    for text in wire.slices:
        if parse_network(text).prefixlen != SLICE_PREFIX:
            raise InputError(f"{text} is not a /{SLICE_PREFIX}")
    if len(set(wire.slices)) != len(wire.slices):
        raise InputError("a certificate names a slice once")
    parse_address(wire.backbone)
    return ServerCertificate(
        key=parse_key(wire.key),
        wireguard_key=parse_wireguard_key(wire.wireguard_key),
        tls_key_hash=parse_key(wire.tls_key_hash),
        region=parse_label(wire.region),
        backbone=wire.backbone,
        slices=tuple(wire.slices),
        epoch=wire.epoch,
    )
