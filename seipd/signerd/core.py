"""What the signer decides: which key, in which state, may sign which bytes. Pure.

A caller hands in whole messages, never digests. Each begins with its purpose (``seipd/<what>/v1``)
and a zero byte, and a key signs only for the purposes that it was made for: what it signed as a
record can't pass for a checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import msgspec

from services.kernel.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from services.kernel.ids import b64u_encode, parse_key
from services.kernel.signing import MAX_SIGNED_BYTES, parse_key_id, parse_scope

MAX_PURPOSES = 16

_PURPOSE = re.compile(r"seipd/[a-z0-9-]{1,64}/v[1-9][0-9]{0,3}\Z")


class KeyState(Enum):
    """Life of a signing key."""

    ACTIVE = "active"
    ROTATING = "rotating"
    RETIRED = "retired"


NEXT_STATES = {
    KeyState.ACTIVE: frozenset({KeyState.ROTATING, KeyState.RETIRED}),
    KeyState.ROTATING: frozenset({KeyState.RETIRED}),
    KeyState.RETIRED: frozenset[KeyState](),
}
MAY_SIGN = frozenset({KeyState.ACTIVE})
"""A rotating key still verifies what it signed; new signatures are its successor's."""


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
        purposes=parse_purposes(wire.purposes),
        handle=wire.handle,
    )


def parse_purposes(texts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Check the purposes of a key; return them sorted, each once.

    Raises:
        InputError: ``bad_purpose``: none, too many, or not ``seipd/<what>/v<number>``.
    """
    if not 1 <= len(texts) <= MAX_PURPOSES:
        raise InputError(f"a key has 1 to {MAX_PURPOSES} purposes", code="bad_purpose")
    for text in texts:
        if not _PURPOSE.match(text):
            raise InputError(
                f"not a purpose: {text[:80]!r}",
                code="bad_purpose",
                mend="write it as seipd/<what>/v1",
            )
    return tuple(sorted(set(texts)))


def handle_of(scope: str, key_id: str) -> str:
    """Return the name under which a provider keeps a key.

    Raises:
        InputError: ``wrong_scope`` or ``bad_key_id``.
    """
    return f"{parse_scope(scope)}/{parse_key_id(key_id)}"


class KeyTable:
    """All keys of a signer by scope and id; a change makes a new table."""

    def __init__(self, rows: tuple[KeyRow, ...]) -> None:
        self._rows = {(row.scope, row.key_id): row for row in rows}
        if len(self._rows) != len(rows):
            raise InputError("two key rows of one name")

    @property
    def rows(self) -> tuple[KeyRow, ...]:
        """The rows, in the order in which they were made."""
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
            InputError: ``wrong_scope`` or ``bad_key_id``.
            NotFoundError: ``key_unknown``.
            ForbiddenError: ``key_retired``, or ``purpose_refused``: the bytes do not begin with a
                purpose of this key and a zero byte, or are too many.
        """
        row = self.find(scope, key_id)
        if row.state not in MAY_SIGN:
            raise ForbiddenError(f"the key is {row.state.value}", code="key_retired")
        if len(data) > MAX_SIGNED_BYTES:
            raise ForbiddenError(f"over {MAX_SIGNED_BYTES} bytes", code="purpose_refused")
        if not any(data.startswith(f"{purpose}\0".encode()) for purpose in row.purposes):
            raise ForbiddenError("the bytes begin with no purpose of it", code="purpose_refused")
        return row

    def with_key(self, row: KeyRow) -> KeyTable:
        """Return a table that holds one key more.

        Raises:
            InputError: there is a key of that name.
        """
        return KeyTable((*self.rows, row))

    def with_state(self, scope: str, key_id: str, state: KeyState) -> KeyTable:
        """Return a table in which a key is in another state; the same state changes nothing.

        Raises:
            InputError: ``wrong_scope`` or ``bad_key_id``.
            NotFoundError: ``key_unknown``.
            ConflictError: ``bad_transition``: there is no way back.
        """
        row = self.find(scope, key_id)
        if state is row.state:
            return self
        if state not in NEXT_STATES[row.state]:
            raise ConflictError(
                f"a key that is {row.state.value} does not become {state.value}",
                code="bad_transition",
                mend="make a new key",
            )
        moved = replace(row, state=state)
        return KeyTable(tuple(moved if one is row else one for one in self.rows))
