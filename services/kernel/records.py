r"""Records and entries: what is signed, and what a feed holds.

    Record = {v, kind, id, module, not_after, body, actor, actor_sig}
    Entry  = {hlc, record}

Both are RFC 8785 canonical JSON. ``actor_sig`` is Ed25519 over ``seipd/record/v1\0``, the 32 raw
bytes of the mesh id and the record without that field. ``not_after`` is in milliseconds of UTC and
is compared to the stamp of the entry. Checking the signature is the caller's: no key is here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from services.kernel import canonical
from services.kernel.errors import InputError, TooLargeError, WireError
from services.kernel.hlc import Hlc, format_hlc, parse_hlc
from services.kernel.ids import (
    MeshId,
    b64u_encode,
    parse_key,
    parse_record_id,
    parse_signature,
    parse_uuid,
)

RECORD_VERSION = 1
MAX_RECORD_BYTES = 16 * 1024
PURPOSE_RECORD = b"seipd/record/v1\0"
PLATFORM = "platform"

_ENTRY_OVERHEAD_BYTES = len('{"hlc":"","record":}') + 16
_ACTOR_END = len('{"actor":""') + 43
_KIND = re.compile(r"[a-z]{2,16}\.[a-z_]{2,32}\Z")
_FIELDS = frozenset({"v", "kind", "id", "module", "not_after", "body", "actor", "actor_sig"})


class BadRecordError(WireError):
    """A record that does not follow the format."""

    default_code = "bad_record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One wanted change, signed by whoever wanted it."""

    kind: str
    id: str
    module: str
    not_after: int
    body: dict[str, Any]
    actor: bytes
    actor_sig: bytes

    def unsigned_value(self) -> dict[str, Any]:
        """Return the JSON object that the signature covers."""
        return {
            "v": RECORD_VERSION,
            "kind": self.kind,
            "id": self.id,
            "module": self.module,
            "not_after": self.not_after,
            "body": self.body,
            "actor": b64u_encode(self.actor),
        }

    def value(self) -> dict[str, Any]:
        """Return the JSON object of the whole record."""
        return {**self.unsigned_value(), "actor_sig": b64u_encode(self.actor_sig)}

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.encode(self.value())

    def encode_with_signed(self, mesh_id: MeshId) -> tuple[bytes, bytes]:
        """Return the canonical bytes and what the signature covers, encoded once.

        ``actor_sig`` comes right after ``actor`` in the order of the keys, and ``actor`` is first.
        """
        unsigned = canonical.encode(self.unsigned_value())
        signature = f',"actor_sig":"{b64u_encode(self.actor_sig)}"'.encode()
        data = unsigned[:_ACTOR_END] + signature + unsigned[_ACTOR_END:]
        return data, PURPOSE_RECORD + bytes.fromhex(mesh_id) + unsigned

    def signed_bytes(self, mesh_id: MeshId) -> bytes:
        """Return what ``actor_sig`` signs."""
        return signing_input(mesh_id, self.unsigned_value())


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record with the stamp of the server that accepted it."""

    hlc: Hlc
    record: Record

    def encode(self) -> bytes:
        """Return the canonical bytes: the data of one leaf of the feed."""
        return canonical.encode({"hlc": format_hlc(self.hlc), "record": self.record.value()})


def draft_record(
    *,
    kind: str,
    body: dict[str, Any],
    actor: bytes,
    not_after: int,
    record_id: str,
    module: str = PLATFORM,
) -> Record:
    """Return a record that still lacks its signature; ``dataclasses.replace`` puts it in."""
    return Record(
        kind=kind,
        id=record_id,
        module=module,
        not_after=not_after,
        body=body,
        actor=actor,
        actor_sig=bytes(64),
    )


def signing_input(mesh_id: MeshId, unsigned: dict[str, Any]) -> bytes:
    """Return the bytes that an actor signs for a record without its signature."""
    return PURPOSE_RECORD + bytes.fromhex(mesh_id) + canonical.encode(unsigned)


def decode_record(data: bytes) -> Record:
    """Parse one record from canonical bytes.

    Raises:
        TooLargeError: over 16 KiB.
        WireError: any other departure from the format.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise TooLargeError(f"a record has at most {MAX_RECORD_BYTES} bytes")
    return record_from_value(canonical.decode_canonical(data))


def decode_entry(data: bytes) -> Entry:
    """Parse one entry of a feed from canonical bytes.

    Raises:
        WireError: any departure from the format.
    """
    if len(data) > MAX_RECORD_BYTES + _ENTRY_OVERHEAD_BYTES:
        raise BadRecordError(f"a record has at most {MAX_RECORD_BYTES} bytes")
    value = canonical.decode_canonical(data)
    if not isinstance(value, dict) or value.keys() != {"hlc", "record"}:
        raise BadRecordError("an entry has hlc and record, nothing else")
    stamp = value["hlc"]
    if not isinstance(stamp, str):
        raise BadRecordError("hlc must be text")
    try:
        return Entry(hlc=parse_hlc(stamp), record=record_from_value(value["record"]))
    except InputError as error:
        raise BadRecordError(str(error)) from error


def record_from_value(value: object) -> Record:
    """Check a decoded JSON value and make a record of it.

    Raises:
        BadRecordError: a field is missing, unknown, or not of its form.
    """
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise BadRecordError(f"a record has exactly the fields {', '.join(sorted(_FIELDS))}")
    if value["v"] != RECORD_VERSION or isinstance(value["v"], bool):
        raise BadRecordError("unknown record version", code="unknown_version")
    not_after, body = value["not_after"], value["body"]
    if type(not_after) is not int or not 0 <= not_after < 1 << 48:
        raise BadRecordError("not_after must be milliseconds")
    if type(body) is not dict:
        raise BadRecordError("body must be an object")
    texts = [value[name] for name in ("kind", "id", "module", "actor", "actor_sig")]
    if not all(type(text) is str for text in texts):
        raise BadRecordError("kind, id, module, actor and actor_sig must be text")
    kind, record_id, module, actor, actor_sig = texts
    if not _KIND.match(kind):
        raise BadRecordError("kind must be view.verb")
    try:
        return Record(
            kind=kind,
            id=parse_record_id(record_id),
            module=parse_module(module),
            not_after=not_after,
            body=body,
            actor=parse_key(actor),
            actor_sig=parse_signature(actor_sig),
        )
    except InputError as error:
        raise BadRecordError(str(error), code=error.code) from error


def parse_module(text: str) -> str:
    """Check a module: ``platform`` or ``domain:<uuid>``.

    Raises:
        InputError: anything else.
    """
    if text != PLATFORM:
        prefix, _, domain = text.partition(":")
        if prefix != "domain":
            raise InputError("module must be platform or domain:<uuid>")
        parse_uuid(domain)
    return text
