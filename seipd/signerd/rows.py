"""The rows of a signer's keys, and the one place where a key's state changes. Pure.

    active ──window opens──> rotating ──window closes──> retired

There is no way back. A rotation binds the old and the new key of one scope to a window: before it
only the old one signs, in it both do, past it the old one is retired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import msgspec

from services.kernel.errors import ConflictError, InputError
from services.kernel.ids import b64u_encode, parse_key
from services.kernel.signing import parse_key_id, parse_scope

MAX_TIME_MS = 1 << 47
MAX_WINDOW_MS = 366 * 24 * 3600 * 1000
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


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One key: its public half, what it is for, and where its provider finds the private one."""

    scope: str
    key_id: str
    state: KeyState
    public_key: bytes
    purposes: tuple[str, ...]
    handle: str
    valid_from_ms: int = 0
    valid_until_ms: int | None = None

    def value(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "scope": self.scope,
            "key_id": self.key_id,
            "state": self.state.value,
            "public_key": b64u_encode(self.public_key),
            "purposes": list(self.purposes),
            "handle": self.handle,
            "valid_from_ms": self.valid_from_ms,
            "valid_until_ms": self.valid_until_ms,
        }

    def moved(self, state: KeyState, *, at_ms: int) -> KeyRow:
        """Return the key in another state; the same state changes nothing.

        Raises:
            ConflictError: ``bad_transition``: there is no way back.
        """
        if state is self.state:
            return self
        if state not in NEXT_STATES[self.state]:
            raise ConflictError(
                f"a key that is {self.state.value} does not become {state.value}",
                code="bad_transition",
                mend="make a new key",
            )
        until_ms = self.valid_until_ms
        if state is KeyState.RETIRED:
            until_ms = at_ms if until_ms is None else min(until_ms, at_ms)
        return replace(self, state=state, valid_until_ms=until_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The window of an old and a new key of one scope.

    Raises:
        InputError: ``bad_window``: it does not open strictly before it closes, or is over a year;
            ``bad_rotation``: the two keys are one.
    """

    scope: str
    old_key_id: str
    new_key_id: str
    opens_at_ms: int
    closes_at_ms: int

    def __post_init__(self) -> None:
        """Check the window and the names."""
        parse_scope(self.scope)
        if parse_key_id(self.old_key_id) == parse_key_id(self.new_key_id):
            raise InputError("a key does not follow itself", code="bad_rotation")
        if not 0 <= self.opens_at_ms < self.closes_at_ms <= MAX_TIME_MS:
            raise InputError("a window opens strictly before it closes", code="bad_window")
        if self.closes_at_ms - self.opens_at_ms > MAX_WINDOW_MS:
            raise InputError("a window lasts at most a year", code="bad_window")

    def value(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "scope": self.scope,
            "old_key_id": self.old_key_id,
            "new_key_id": self.new_key_id,
            "opens_at_ms": self.opens_at_ms,
            "closes_at_ms": self.closes_at_ms,
        }

    def touches(self, scope: str, *key_ids: str) -> bool:
        """Say whether one of these keys is one of the two."""
        return self.scope == scope and not {self.old_key_id, self.new_key_id}.isdisjoint(key_ids)


class _RowWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scope: str
    key_id: str
    state: KeyState
    public_key: str
    purposes: list[str]
    handle: str
    valid_from_ms: int
    valid_until_ms: int | None


class _RotationWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scope: str
    old_key_id: str
    new_key_id: str
    opens_at_ms: int
    closes_at_ms: int


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
        valid_from_ms=wire.valid_from_ms,
        valid_until_ms=wire.valid_until_ms,
    )


def rotation_from_value(value: object) -> Rotation:
    """Check the JSON object of a rotation.

    Raises:
        InputError: malformed.
    """
    try:
        wire = msgspec.convert(value, _RotationWire)
    except msgspec.ValidationError as error:
        raise InputError(f"rotation: {error}") from error
    return Rotation(**msgspec.structs.asdict(wire))
