"""Kinds of traffic as stretches of one line, on which rules are compared and laid over each other.

A point of the line is an IP protocol's number and a port: ``protocol << 16 | port``. Protocols
without ports take their whole stretch. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from services.kernel.errors import InputError
from services.kernel.ids import parse_decimal

Span = tuple[int, int]
"""The first and the last point of a stretch."""

TCP: Final = 6
UDP: Final = 17
PORTS: Final = 0xFFFF
LAST: Final = 0xFF << 16 | PORTS
WHOLE: Final[Span] = (0, LAST)
ANY: Final = "any"
NUMBERS: Final = {"tcp": (TCP,), "udp": (UDP,), "icmp": (1, 58)}
"""ICMP is one to people, and two protocols: that of IPv4 and that of IPv6."""

_FORM: Final = re.compile(r"([a-z]{3,4})(?:/([0-9]{1,5})(?:-([0-9]{1,5}))?)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Some traffic, as people write it and as stretches of the line, ascending."""

    text: str
    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        """How much of the line it covers: of two, the smaller is the more specific."""
        return sum(last - first + 1 for first, last in self.spans)


def parse_traffic(text: str) -> Traffic:
    """Parse ``any``, ``icmp``, ``tcp``, ``udp``, ``tcp/22`` or ``tcp/8000-8100``.

    Raises:
        InputError: ``bad_traffic``: anything else, or another spelling of it.
    """
    if text == ANY:
        return Traffic(text=ANY, spans=(WHOLE,))
    found = _FORM.match(text)
    if found is None or found[1] not in NUMBERS or (found[1] == "icmp" and found[2]):
        raise _bad(text)
    if found[2] is None:
        spans = tuple((number << 16, number << 16 | PORTS) for number in NUMBERS[found[1]])
        return Traffic(text=text, spans=spans)
    try:
        low = parse_decimal(found[2])
        high = parse_decimal(found[3]) if found[3] else low
    except InputError as error:
        raise _bad(text) from error
    if not 0 < low <= high <= PORTS or (found[3] and low == high):
        raise _bad(text)
    (number,) = NUMBERS[found[1]]
    return Traffic(text=text, spans=((number << 16 | low, number << 16 | high),))


def spell(spans: list[Span]) -> str:
    """Return what people call these stretches, which ascend and do not touch."""
    if spans == [WHOLE]:
        return ANY
    words = [word for span in spans for word in _words(span)]
    return ", ".join(dict.fromkeys(words)) or "nothing"


def _words(span: Span) -> list[str]:
    words = []
    (first, low), (last, high) = (divmod(point, PORTS + 1) for point in span)
    for number in range(first, last + 1):
        end = high if number == last else PORTS
        # Nobody speaks of port 0, and what covers it need not say so.
        start = min(max(low if number == first else 0, 1), end)
        name = next((one for one, held in NUMBERS.items() if number in held), f"protocol {number}")
        if number not in (TCP, UDP) or (start == 1 and end == PORTS):
            words.append(name)
        else:
            words.append(f"{name}/{start}" + (f"-{end}" if end != start else ""))
    # A run of protocols that nobody names is one word.
    named = [word for word in words if not word.startswith("protocol ")]
    return words if len(words) - len(named) < 2 else [*named, "other protocols"]


def _bad(text: str) -> InputError:
    return InputError(
        f"{text[:40]!r} is no traffic",
        code="bad_traffic",
        mend="write tcp/22, udp/8000-8100, tcp, icmp or any",
    )
