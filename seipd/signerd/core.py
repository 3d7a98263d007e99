"""What the signer decides: which key, in which state, may sign which bytes, and when. Pure.

A caller hands in whole messages, never digests. Each begins with its purpose (``seipd/<what>/v1``)
and a zero byte, a DNSKEY set as RFC 4034 has it, and a key signs only for the purposes that it was
made for: what it signed as a record can't pass for a checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from seipd.signerd.rows import (
    MAX_TIME_MS,
    KeyRow,
    KeyState,
    Rotation,
    rotation_from_value,
    row_from_value,
)
from services.kernel.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from services.kernel.signing import MAX_SIGNED_BYTES, parse_key_id, parse_scope, purpose_head

TABLE_VERSION = 1
MAX_KEYS = 2048


def handle_of(scope: str, key_id: str) -> str:
    """Return the name under which a provider keeps a key.

    Raises:
        InputError: ``wrong_scope`` or ``bad_key_id``.
    """
    return f"{parse_scope(scope)}/{parse_key_id(key_id)}"


class KeyTable:
    """All keys of a signer by scope and id, and their rotations; a change makes a new table.

    Raises:
        InputError: two rows of one name, too many of them, or a rotation of keys that are not here.
    """

    def __init__(self, rows: tuple[KeyRow, ...], rotations: tuple[Rotation, ...] = ()) -> None:
        self._rows = {(row.scope, row.key_id): row for row in rows}
        if len(self._rows) != len(rows) or len(rows) > MAX_KEYS:
            raise InputError("two key rows of one name, or too many")
        self.rotations = rotations
        for one in rotations:
            for key_id in (one.old_key_id, one.new_key_id):
                if (one.scope, key_id) not in self._rows:
                    raise InputError(f"a rotation of the key {key_id}, which is not there")
        self._due_ms = min(self._due_times(), default=MAX_TIME_MS)

    @property
    def rows(self) -> tuple[KeyRow, ...]:
        """The rows, in the order in which they were made."""
        return tuple(self._rows.values())

    def value(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "v": TABLE_VERSION,
            "keys": [row.value() for row in self.rows],
            "rotations": [one.value() for one in self.rotations],
        }

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

    def may_sign(self, scope: str, key_id: str, data: bytes, *, now_ms: int) -> KeyRow:
        """Return the key that may sign these bytes now.

        Raises:
            InputError: ``wrong_scope``, ``bad_key_id`` or ``message_too_long``.
            NotFoundError: ``key_unknown``.
            ForbiddenError: ``key_retired``; ``rotation_in_progress``: its window has not opened;
                ``purpose_refused``: the bytes do not begin as those for a purpose of this key.
        """
        row = self.find(scope, key_id)
        ended = row.valid_until_ms is not None and now_ms >= row.valid_until_ms
        if ended or row.state is KeyState.RETIRED:
            raise ForbiddenError("the key is retired", code="key_retired")
        if now_ms < row.valid_from_ms:
            raise ForbiddenError(
                "the key follows another one whose window has not opened",
                code="rotation_in_progress",
            )
        if len(data) > MAX_SIGNED_BYTES:
            raise InputError(f"over {MAX_SIGNED_BYTES} bytes", code="message_too_long")
        if not any(data.startswith(purpose_head(purpose)) for purpose in row.purposes):
            raise ForbiddenError("the bytes begin with no purpose of it", code="purpose_refused")
        return row

    def with_key(self, row: KeyRow) -> KeyTable:
        """Return a table that holds one key more.

        Raises:
            InputError: there is a key of that name.
        """
        return KeyTable((*self.rows, row), self.rotations)

    def advanced(self, now_ms: int) -> KeyTable:
        """Return the table as it stands at a time: windows that opened, keys that ended."""
        if now_ms < self._due_ms:
            return self
        opened = {
            (one.scope, one.old_key_id) for one in self.rotations if one.opens_at_ms <= now_ms
        }
        return KeyTable(
            tuple(_aged(row, now_ms, opened=name in opened) for name, row in self._rows.items()),
            self.rotations,
        )

    def retired(self, scope: str, key_id: str, *, now_ms: int) -> KeyTable:
        """Return a table in which a key signs no more.

        Raises:
            InputError: ``wrong_scope`` or ``bad_key_id``.
            NotFoundError: ``key_unknown``.
        """
        row = self.find(scope, key_id)
        return self._replaced(row.moved(KeyState.RETIRED, at_ms=now_ms))

    def rotation_of(self, scope: str, old_key_id: str, new_key_id: str) -> Rotation | None:
        """Return the rotation of these two keys, if there is one."""
        pair = (scope, old_key_id, new_key_id)
        for one in self.rotations:
            if (one.scope, one.old_key_id, one.new_key_id) == pair:
                return one
        return None

    def check_rotation(self, rotation: Rotation, *, now_ms: int) -> KeyRow:
        """Return the old key of a rotation that may begin.

        Raises:
            ConflictError: ``key_exists``; ``rotation_in_progress``: a key is in another one.
            ForbiddenError: ``key_retired``.
            InputError: ``bad_window``: it is over already.
            NotFoundError: ``key_unknown``.
        """
        old = self.find(rotation.scope, rotation.old_key_id)
        if old.state is KeyState.RETIRED:
            raise ForbiddenError("the key is retired", code="key_retired")
        names = (rotation.old_key_id, rotation.new_key_id)
        for one in self.rotations:
            ended = self.find(one.scope, one.old_key_id).state is KeyState.RETIRED
            if not ended and one.touches(rotation.scope, *names):
                raise ConflictError(
                    f"{one.old_key_id} and {one.new_key_id} are in a rotation",
                    code="rotation_in_progress",
                    mend="wait until its window has closed",
                )
        if (rotation.scope, rotation.new_key_id) in self._rows:
            raise ConflictError(
                f"there is a key {rotation.new_key_id}", code="key_exists", mend="choose another"
            )
        if rotation.closes_at_ms <= now_ms:
            raise InputError("the window is over already", code="bad_window")
        return old

    def with_rotation(self, rotation: Rotation, public_key: bytes, *, now_ms: int) -> KeyTable:
        """Return a table with the successor of a key; raises as ``check_rotation``."""
        old = self.check_rotation(rotation, now_ms=now_ms)
        until_ms = rotation.closes_at_ms
        if old.valid_until_ms is not None:
            until_ms = min(until_ms, old.valid_until_ms)
        new = KeyRow(
            scope=old.scope,
            key_id=rotation.new_key_id,
            state=KeyState.ACTIVE,
            public_key=public_key,
            purposes=old.purposes,
            handle=handle_of(old.scope, rotation.new_key_id),
            valid_from_ms=rotation.opens_at_ms,
        )
        ending = self._replaced(replace(old, valid_until_ms=until_ms))
        return KeyTable((*ending.rows, new), (*self.rotations, rotation)).advanced(now_ms)

    def _replaced(self, changed: KeyRow) -> KeyTable:
        name = (changed.scope, changed.key_id)
        rows = tuple(changed if key == name else row for key, row in self._rows.items())
        return KeyTable(rows, self.rotations)

    def _due_times(self) -> list[int]:
        waiting = {name for name, row in self._rows.items() if row.state is KeyState.ACTIVE}
        return [
            *(one.opens_at_ms for one in self.rotations if (one.scope, one.old_key_id) in waiting),
            *(
                row.valid_until_ms
                for row in self._rows.values()
                if row.valid_until_ms is not None and row.state is not KeyState.RETIRED
            ),
        ]


def _aged(row: KeyRow, now_ms: int, *, opened: bool) -> KeyRow:
    if opened and row.state is KeyState.ACTIVE:
        row = row.moved(KeyState.ROTATING, at_ms=now_ms)
    if row.valid_until_ms is not None and now_ms >= row.valid_until_ms:
        row = row.moved(KeyState.RETIRED, at_ms=row.valid_until_ms)
    return row


def table_from_value(value: object) -> KeyTable:
    """Check the JSON object of a table.

    Raises:
        InputError: malformed.
    """
    if not isinstance(value, dict) or set(value) != {"v", "keys", "rotations"}:
        raise InputError("not a table of keys")
    if value["v"] != TABLE_VERSION:
        raise InputError(f"a table of version {value['v']!r:.20}, this program reads 1")
    if not isinstance(value["keys"], list) or not isinstance(value["rotations"], list):
        raise InputError("not a table of keys")
    rows = tuple(row_from_value(one) for one in value["keys"])
    return KeyTable(rows, tuple(rotation_from_value(one) for one in value["rotations"]))
