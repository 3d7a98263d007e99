"""What crosses the signer's socket about its keys and its audit: canonical JSON.

    seipd.keys.v1.Keys    Make, Rotate, List, Audit

It stands beside the two calls for signatures, on the unix socket alone: whoever asks from another
machine can have things signed, and no more.
"""

from __future__ import annotations

from typing import Any

from services.base.signing.recovery_wire import Message

SERVICE = "seipd.keys.v1.Keys"
MAX_ENTRIES = 1000


class MakeRequest(Message, frozen=True):
    """Make a key for these purposes, unless it is there."""

    scope: str
    key_id: str
    purposes: list[str]


class RotateRequest(Message, frozen=True):
    """Make the successor of a key, and bind the two to a window."""

    scope: str
    old_key_id: str
    new_key_id: str
    opens_at_ms: int
    closes_at_ms: int


class RotateReply(Message, frozen=True):
    """The rotation, with the window that it has."""

    opens_at_ms: int
    closes_at_ms: int
    new_public_key: str


class ListRequest(Message, frozen=True):
    """Tell the keys of a scope; of all scopes where it is empty."""

    scope: str


class KeyWire(Message, frozen=True):
    """One key: what its row says, but for where its provider finds it."""

    scope: str
    key_id: str
    state: str
    public_key: str
    purposes: list[str]
    valid_from_ms: int
    valid_until_ms: int | None


class ListReply(Message, frozen=True):
    """Keys, in the order in which they were made."""

    keys: list[KeyWire]


class AuditRequest(Message, frozen=True):
    """Read entries of a month, from a number on; the newest month where it is empty."""

    month: str
    first: int
    count: int


class AuditReply(Message, frozen=True):
    """Entries of a month's log, and what signs them all."""

    months: list[str]
    month: str
    vkey: str
    checkpoint: str
    size: int
    entries: list[dict[str, Any]]
