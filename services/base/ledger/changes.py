"""The two kinds of record that the charter is made of, and their forms. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from services.base.ledger.rootchain import ROTATE_KIND, Link, RootChain, link_from_record
from services.kernel.addr import Ranges, ranges_from_value
from services.kernel.certificates import ServerCertificate, certificate_from_value
from services.kernel.errors import InputError
from services.kernel.ids import (
    MeshId,
    ServerId,
    b64u_encode,
    mesh_id_of,
    parse_domain,
    parse_key,
    parse_server_id,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.records import Record

GENESIS_KIND = "root.genesis"
CHANGE_KIND = "roster.change"
CHANGE_KINDS = frozenset({CHANGE_KIND, ROTATE_KIND})
"""What has a number in the hash chain of the roster."""
MAX_WITNESSES = 9
MAX_TRUST_CHECKS = 128
"""So many checks of a server are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Genesis:
    """What the first record of a mesh says."""

    mesh_id: MeshId
    root_key: bytes
    domain: str
    ranges: Ranges
    activated_ms: int
    expires_ms: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The end of a server: how much of its feed counts, and the root over that."""

    server_id: ServerId
    size: int
    root: bytes

    def value(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"server": self.server_id, "size": self.size, "root": b64u_encode(self.root)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnd:
    """The end of a feed's epoch: how many entries it has, and the root over them."""

    server_id: ServerId
    size: int
    root: bytes

    def value(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"server": self.server_id, "size": self.size, "root": b64u_encode(self.root)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step of the roster."""

    number: int
    prev: str
    servers: tuple[ServerCertificate, ...]
    removed: tuple[Removal, ...]
    witnesses: tuple[ServerId, ...]
    ended: tuple[EpochEnd, ...] = ()
    closed: int | None = None
    """The generation of the root whose window this ends."""
    recovery_key: bytes | None = None
    """What endorses a successor of the root's key from here on, should that be lost."""
    link: Link | None = None
    """The next key of the root, where this hands over to it."""


class _TrustWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    attestation: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9-]{1,16}\Z")]],
        msgspec.Meta(max_length=8),
    ]
    checks: Annotated[int, msgspec.Meta(ge=1, le=MAX_TRUST_CHECKS)]
    newcomers: Literal[1, 2]


class _GenesisWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    generation: int
    public_key: str
    domain: str
    ranges: dict[str, str]
    activated_ms: int
    expires_ms: int
    version: int
    parameters: dict[str, int | str] = {}
    trust: _TrustWire | None = None


class _EndWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: str
    size: int
    root: str


class _ChangeWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    prev: str
    servers: list[dict[str, object]]
    removed: list[_EndWire]
    witnesses: list[str]
    ended: list[_EndWire] = []
    closed: int | None = None
    recovery_key: str | None = None


def genesis_from_record(record: Record) -> Genesis:
    """Check the body of ``root.genesis``; the caller has checked the signature.

    Raises:
        InputError: malformed, or not signed by the key that it names.
    """
    if record.kind != GENESIS_KIND:
        raise InputError("a mesh starts with root.genesis")
    try:
        wire = msgspec.convert(record.body, _GenesisWire)
    except msgspec.ValidationError as error:
        raise InputError(f"root.genesis: {error}") from error
    key = parse_key(wire.public_key)
    if key != record.actor or wire.generation != 1:
        raise InputError("root.genesis is signed by the root key of generation 1 that it names")
    return Genesis(
        mesh_id=mesh_id_of(key),
        root_key=key,
        domain=parse_domain(wire.domain),
        ranges=ranges_from_value(wire.ranges),
        activated_ms=wire.activated_ms,
        expires_ms=wire.expires_ms,
        version=wire.version,
    )


def first_chain(genesis: Genesis) -> RootChain:
    """Return the root key chain that a mesh begins with."""
    return RootChain.of_genesis(
        genesis.mesh_id,
        genesis.root_key,
        activated_ms=genesis.activated_ms,
        expires_ms=genesis.expires_ms,
    )


def change_from_record(record: Record) -> Change:
    """Check the body of a change as far as it can be without the changes before it.

    Raises:
        InputError: malformed.
    """
    if record.kind == ROTATE_KIND:
        link = link_from_record(record)
        return Change(
            number=link.number,
            prev=link.prev,
            servers=(),
            removed=(),
            witnesses=_witnesses(link.witnesses),
            link=link,
        )
    try:
        wire = msgspec.convert(record.body, _ChangeWire)
    except msgspec.ValidationError as error:
        raise InputError(f"roster.change: {error}") from error
    if not 1 <= wire.number < 1 << 40:
        raise InputError("roster.change: number must be 1 or more")
    return Change(
        number=wire.number,
        prev=wire.prev,
        servers=tuple(certificate_from_value(value) for value in wire.servers),
        removed=tuple(Removal(**_end(one)) for one in wire.removed),
        witnesses=_witnesses([parse_server_id(text) for text in wire.witnesses]),
        ended=tuple(EpochEnd(**_end(one)) for one in wire.ended),
        closed=wire.closed,
        recovery_key=parse_key(wire.recovery_key) if wire.recovery_key is not None else None,
    )


def _witnesses(named: Sequence[ServerId]) -> tuple[ServerId, ...]:
    if len(named) % 2 == 0 or len(named) > MAX_WITNESSES:
        raise InputError("witnesses must be an odd number, nine at most")
    if len(set(named)) != len(named):
        raise InputError("a witness is named once")
    return tuple(named)


def _end(wire: _EndWire) -> dict[str, Any]:
    if not 0 <= wire.size < 1 << 48:
        raise InputError("roster.change: size out of range")
    return {
        "server_id": parse_server_id(wire.server),
        "size": wire.size,
        "root": parse_key(wire.root),
    }


def record_hash(record: Record) -> str:
    """Return the SHA-256 of a record's canonical bytes, in hex."""
    return hashlib.sha256(record.encode()).hexdigest()


def change_number(record: Record) -> int:
    """Return the number that a record of the roster's chain claims; 0 where it claims none."""
    number = record.body.get("number")
    return number if isinstance(number, int) else 0
