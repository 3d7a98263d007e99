"""The state as it was settled at a time, which is the same on every server that holds the feeds.

Every ``interval_ms`` there is a tick. A few seconds later, when what was settled until then has
arrived, each server can say what the state was at the tick: its feeds, and the root of its map. A
``StateWord`` of more than half of the witnesses lets one believe a state without folding it.
Between two of them there are quick ticks, at which something is said only where something is new:
who joined need not wait for the next. Pure.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from services.base.ledger.points import points_at
from services.base.ledger.snapshot import points_value
from services.kernel import canonical
from services.kernel.errors import WireError
from services.kernel.versions import unknown_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.base.ledger.fold import Fold
    from services.base.ledger.roster import Charter
    from services.base.ledger.standing import FeedPoint
    from services.kernel.ids import ServerId

GRACE_MS: Final = 5_000
QUICK_MS: Final = 2_000
QUICK_GRACE_MS: Final = 2_000
QUICK_NEWS_MS: Final = 3 * QUICK_MS
"""For so long news is told at quick ticks: not all hear of an attest in the same moment."""
MAX_TAKEN_BACK: Final = 1024
"""To say what the state was, later entries are taken back and applied again."""

_Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class StateWord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one server says of the state at a tick."""

    time_ms: _Number
    roster_number: _Number
    roster_hash: _Hash
    feeds_hash: _Hash
    root: _Hash

    def encode(self) -> bytes:
        """Return the bytes that are signed, in the envelope of a fact."""
        return msgspec.msgpack.encode(self)


_DECODER: Final = msgspec.msgpack.Decoder(StateWord)


def decode_word(data: bytes) -> StateWord:
    """Parse a word.

    Raises:
        WireError: malformed, or in another spelling than ours.
    """
    try:
        word = _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise WireError("not a word on the state") from error
    if word.encode() != data:
        raise WireError("a word on the state in another spelling than ours", code="non_canonical")
    return word


def last_tick_ms(now_ms: int, interval_ms: int) -> int:
    """Return the newest tick of which everything should have arrived."""
    return (now_ms - GRACE_MS) // interval_ms * interval_ms


def quick_tick_ms(fold: Fold, now_ms: int, interval_ms: int) -> int | None:
    """Return the newest quick tick, if there was news lately; None also where that is much work.

    What is news follows from the feeds alone, so that the witnesses speak at the same ticks.
    """
    tick_ms = (now_ms - QUICK_GRACE_MS) // QUICK_MS * QUICK_MS
    if tick_ms % interval_ms == 0:
        return None
    later_count, is_news = 0, False
    for feed in fold.feeds.values():
        settled = next((one for one in reversed(feed.attests) if one.settled_ms <= tick_ms), None)
        later_count += feed.size - (settled.size if settled is not None else 0)
        is_news |= settled is not None and settled.settled_ms > tick_ms - QUICK_NEWS_MS
    return tick_ms if is_news and later_count <= MAX_TAKEN_BACK else None


def word_at(fold: Fold, tick_ms: int) -> StateWord | None:
    """Return what the state was at a tick.

    None where that is not remembered any more, or was of a protocol version unknown here: what
    such a version voids or brings can't be computed, so nothing is said of it.
    """
    points = points_at(fold, tick_ms)
    if points is None:
        return None
    with fold.as_of(tick_ms, fold.charter.number):
        if unknown_version(fold.state):
            return None
        root = fold.state.root()
    return word_of(fold.charter, tick_ms, points, root, roster_number=fold.charter.number)


def word_of(
    charter: Charter,
    tick_ms: int,
    points: Mapping[ServerId, FeedPoint],
    root: bytes,
    *,
    roster_number: int,
) -> StateWord:
    """Return the word on a state whose feeds and root are known."""
    return StateWord(
        time_ms=tick_ms,
        roster_number=roster_number,
        roster_hash=bytes.fromhex(charter.hash_at(roster_number) or charter.head),
        feeds_hash=hashlib.sha256(canonical.encode(points_value(points))).digest(),
        root=root,
    )


def agreed_word(charter: Charter, words: Mapping[ServerId, StateWord]) -> StateWord | None:
    """Return the newest word that more than half of the witnesses gave, or None.

    The witnesses are those of the roster that the word itself names; it must be one of ours.
    """
    groups: dict[StateWord, set[ServerId]] = {}
    for server_id, word in words.items():
        groups.setdefault(word, set()).add(server_id)
    agreed = [word for word, names in groups.items() if _is_agreed(charter, word, names)]
    return max(agreed, key=lambda word: (word.roster_number, word.time_ms), default=None)


def _is_agreed(charter: Charter, word: StateWord, names: Iterable[ServerId]) -> bool:
    hash_text = charter.hash_at(word.roster_number)
    if hash_text is None or bytes.fromhex(hash_text) != word.roster_hash:
        return False
    witnesses = charter.witnesses_at(word.roster_number)
    return 2 * len(set(witnesses) & set(names)) > len(witnesses)
