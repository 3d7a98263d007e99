"""Counters under a fixed set of names: what arrives from outside can't make a new label."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from services.kernel.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Count(Enum):
    """Everything that gossip counts."""

    # An Enum hashes its name, in Python; every datagram is counted twice.
    __hash__ = object.__hash__

    RECEIVED = "received"
    SENT = "sent"
    RECEIVED_BYTES = "received_bytes"
    SENT_BYTES = "sent_bytes"
    HANDSHAKES = "handshakes"
    ENTRIES_RECEIVED = "entries_received"
    ENTRIES_SENT = "entries_sent"
    PULLS_SENT = "pulls_sent"
    PULLS_TIMED_OUT = "pulls_timed_out"
    PULLS_REFUSED = "pulls_refused"
    FETCHES = "fetches"
    FETCHES_FAILED = "fetches_failed"
    INGEST_FAILED = "ingest_failed"
    OWN_FEED_AHEAD = "own_feed_ahead"
    UNKNOWN_FEED = "unknown_feed"
    FORBIDDEN_TYPE = "forbidden_type"
    BAD_FACT = "bad_fact"
    FACT_OF_UNKNOWN_KIND = "fact_of_unknown_kind"
    FACT_TOO_OFTEN = "fact_too_often"
    DROPPED_TOO_LARGE = "dropped_too_large"
    DROPPED_MALFORMED = "dropped_malformed"
    DROPPED_UNKNOWN_SENDER = "dropped_unknown_sender"
    DROPPED_NOT_FOR_US = "dropped_not_for_us"
    DROPPED_CLOCK_SKEW = "dropped_clock_skew"
    DROPPED_REPLAY = "dropped_replay"
    DROPPED_BAD_SIGNATURE = "dropped_bad_signature"
    DROPPED_UNKNOWN_SESSION = "dropped_unknown_session"
    DROPPED_BAD_BOX = "dropped_bad_box"
    DROPPED_WRONG_ADDRESS = "dropped_wrong_address"
    DROPPED_RATE_LIMITED = "dropped_rate_limited"
    DROPPED_BAD_MESSAGE = "dropped_bad_message"


class DroppedError(WireError):
    """A datagram that gets no answer; ``count`` says under which name it is counted."""

    default_code = "dropped"

    def __init__(self, count: Count) -> None:
        super().__init__(count.value)
        self.count = count


class Counters:
    """One number for each name."""

    def __init__(self) -> None:
        self._values = dict.fromkeys(Count, 0)

    def add(self, count: Count, amount: int = 1) -> None:
        """Count something."""
        self._values[count] += amount

    def __getitem__(self, count: Count) -> int:
        return self._values[count]

    def snapshot(self) -> Mapping[str, int]:
        """Return every number by its name."""
        return {count.value: value for count, value in self._values.items()}

    @property
    def dropped_count(self) -> int:
        """How many datagrams got no answer for any reason."""
        return sum(n for count, n in self._values.items() if count.name.startswith("DROPPED_"))
