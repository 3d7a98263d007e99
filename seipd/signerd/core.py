"""What the signer decides: which key, in which state, may sign which bytes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from services.kernel.errors import ForbiddenError, InputError, NotFoundError
from services.kernel.ids import b64u_encode, parse_key
from services.kernel.signing import MAX_SIGNED_BYTES, parse_key_id, parse_scope


class KeyState(Enum):
    """Life of a signing key."""

    ACTIVE = "active"
    ROTATING = "rotating"
    RETIRED = "retired"


MAY_SIGN = frozenset({KeyState.ACTIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One key: its public half, what it is for, and where its provider finds the private one."""

    scope: str
    key_id: str
    state: KeyState
    public_key: bytes
    purposes: tuple[str, ...]
    handle: str

    def value(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "scope": self.scope,
            "key_id": self.key_id,
            "state": self.state.value,
            "public_key": b64u_encode(self.public_key),
            "purposes": list(self.purposes),
            "handle": self.handle,
        }


class _RowWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scope: str
    key_id: str
    state: KeyState
    public_key: str
    purposes: list[str]
    handle: str


def row_from_value(value: object) -> KeyRow:
    """Check the JSON object of a row.

    Raises:
        InputError: malformed.
    """
    try:
        wire = msgspec.convert(value, _RowWire)
    except msgspec.ValidationError as error:
        raise InputError(f"key row: {error}") from error
    return KeyRow(
        scope=parse_scope(wire.scope),
        key_id=parse_key_id(wire.key_id),
        state=wire.state,
        public_key=parse_key(wire.public_key),
        purposes=tuple(wire.purposes),
        handle=wire.handle,
    )


class KeyTable:
    """All keys of a signer by scope and id."""

    def __init__(self, rows: tuple[KeyRow, ...]) -> None:
        self._rows = {(row.scope, row.key_id): row for row in rows}

    @property
    def rows(self) -> tuple[KeyRow, ...]:
        """The rows, in no order that means anything."""
        return tuple(self._rows.values())

    def find(self, scope: str, key_id: str) -> KeyRow:
        """Return a key.

        Raises:
            InputError: ``wrong_scope`` or ``bad_key_id``.
            NotFoundError: ``key_unknown``.
        """
        row = self._rows.get((parse_scope(scope), parse_key_id(key_id)))
        if row is None:
            raise NotFoundError("there is no such key in that scope", code="key_unknown")
        return row

    def may_sign(self, scope: str, key_id: str, data: bytes) -> KeyRow:
        """Return the key that may sign these bytes.

        Raises:
            ForbiddenError: ``key_retired``, or ``purpose_refused``: the bytes do not begin with a
                purpose of this key and a zero byte.
        """
        row = self.find(scope, key_id)
        if row.state not in MAY_SIGN:
            raise ForbiddenError(f"the key is {row.state.value}", code="key_retired")
        if len(data) > MAX_SIGNED_BYTES:
            raise ForbiddenError(f"over {MAX_SIGNED_BYTES} bytes", code="purpose_refused")
        if not any(data.startswith(f"{purpose}\0".encode()) for purpose in row.purposes):
            raise ForbiddenError("the bytes begin with no purpose of it", code="purpose_refused")
        return row
