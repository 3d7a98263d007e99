"""What the signer writes down of every call: one line of canonical JSON an entry. Pure.

``granted`` is what was done; ``insufficient_relation`` what this caller may not ask for;
``caveat_violation`` what it may, but not of this key, now or in this form.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

from services.kernel import canonical
from services.kernel.errors import CorruptError, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.errors import SeipdError

ENTRY_VERSION = 1
MAX_NAME_CHARS = 128
RELATION_CODES = frozenset({"caller_unknown", "wrong_scope"})


class Outcome(Enum):
    """How a call ended."""

    GRANTED = "granted"
    INSUFFICIENT_RELATION = "insufficient_relation"
    CAVEAT_VIOLATION = "caveat_violation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call: by whom, and for what. ``digest`` is SHA-256 of the bytes to sign.

    ``more`` has digest and size of each further message that the same call asked the same key to
    sign, where it ended the same way. ``times`` is how many calls of strangers an entry stands for.
    """

    call: str
    caller: str
    scope: str
    key_id: str
    digest: str = ""
    size_bytes: int = 0
    more: Sequence[tuple[str, int]] = ()
    is_known: bool = True
    times: int = 1


def entry_of(asked: Asked, *, at_ms: int, refusal: SeipdError | None = None) -> bytes:
    """Return the entry of a call that was granted, or refused for a reason.

    Raises:
        WireError: a name is no text.
    """
    # What a stranger wrote is kept as far as a good name could go.
    who = _who(asked.call, asked.caller, asked.key_id[:MAX_NAME_CHARS])
    ended = _ended(
        outcome_of(refusal).value,
        refusal.code if refusal is not None else "",
        asked.scope[:MAX_NAME_CHARS],
    )
    more = b",".join([b'["%b",%d]' % (digest.encode(), size) for digest, size in asked.more])
    return b'{"at_ms":%d,%b,%b%b,"sha256":"%b","size_bytes":%d,%b"v":%d}' % (
        at_ms,
        who,
        b'"more":[%b],' % more if more else b"",
        ended,
        asked.digest.encode(),
        asked.size_bytes,
        b'"times":%d,' % asked.times if asked.times > 1 else b"",
        ENTRY_VERSION,
    )


@functools.lru_cache(maxsize=256)
def _who(call: str, caller: str, key_id: str) -> bytes:
    """Return the beginning of an entry, which is the same over and over."""
    return canonical.encode({"call": call, "caller": caller, "key_id": key_id})[1:-1]


@functools.lru_cache(maxsize=256)
def _ended(outcome: str, reason: str, scope: str) -> bytes:
    return canonical.encode({"outcome": outcome, "reason": reason, "scope": scope})[1:-1]


def outcome_of(refusal: SeipdError | None) -> Outcome:
    """Return what a refusal, or none, is called in the audit."""
    if refusal is None:
        return Outcome.GRANTED
    if refusal.code in RELATION_CODES:
        return Outcome.INSUFFICIENT_RELATION
    return Outcome.CAVEAT_VIOLATION


def month_entry(*, at_ms: int, before: str, size: int, root: bytes) -> bytes:
    """Return the first entry of a month: what the log of the month before came to."""
    return canonical.encode(
        {
            "v": ENTRY_VERSION,
            "at_ms": at_ms,
            "call": "month",
            "before": before,
            "size": size,
            "root": root.hex(),
        }
    )


def time_of(entry: bytes) -> int:
    """Return when an entry was written, in milliseconds since 1970.

    Raises:
        CorruptError: it is no entry.
    """
    try:
        at_ms = canonical.decode_object(entry).get("at_ms")
    except WireError as error:
        raise CorruptError(f"an audit entry: {error}", path="audit") from error
    if not isinstance(at_ms, int):
        raise CorruptError("an audit entry without its time", path="audit")
    return at_ms


def month_of(at_ms: int) -> str:
    """Return the month of a time, as its log is called."""
    at = datetime.fromtimestamp(at_ms // 1000, tz=UTC)
    return f"{at.year:04d}-{at.month:02d}"
