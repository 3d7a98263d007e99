"""Hybrid logical clock: 48 bits of milliseconds, 16 bits of counter, only growing.

Kulkarni et al., "Logical Physical Clocks" (2014). On the wire a stamp is 16 lower-case hex digits,
so that text order is time order and no number leaves the range of JSON's safe integers.
"""

from __future__ import annotations

import re
from typing import NewType

from services.kernel.errors import InputError

Hlc = NewType("Hlc", int)

COUNTER_BITS = 16
_STAMP = re.compile(r"[0-9a-f]{16}\Z")


def hlc_ms(stamp: Hlc) -> int:
    """Return the milliseconds of a stamp."""
    return stamp >> COUNTER_BITS


def next_hlc(last: Hlc, now_ms: int) -> Hlc:
    """Return the first stamp after ``last`` that is not before ``now_ms``."""
    return Hlc(max(last + 1, now_ms << COUNTER_BITS))


def format_hlc(stamp: Hlc) -> str:
    """Return the 16 hex digits of a stamp."""
    return f"{stamp:016x}"


def parse_hlc(text: str) -> Hlc:
    """Parse the 16 hex digits of a stamp.

    Raises:
        InputError: any other spelling.
    """
    if not _STAMP.match(text):
        raise InputError("a stamp is 16 lower-case hex digits")
    return Hlc(int(text, 16))
