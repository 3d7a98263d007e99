"""Records, and the body of a response: what follows the question, names compressed. Pure.

Pointers lead into the question, so that owner names come back in the case in which they were asked
(0x20), and the same body fits each question for the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.edge.dns.wire import CLASS_IN, HEADER_BYTES, Type
from services.kernel.dnsnames import ROOT

_MAX_POINTER: Final = 0x3FFF
_QUESTION_TAIL_BYTES: Final = 4

# Where names stand in the data of the types whose names may be compressed (RFC 3597 section 4):
# how many octets before them, and how many names.
_NAMES_IN: Final = {
    int(Type.NS): (0, 1),
    int(Type.CNAME): (0, 1),
    int(Type.PTR): (0, 1),
    int(Type.MX): (2, 1),
    int(Type.SOA): (0, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSet:
    """The records of one type at one name: what a resolver gets whole or not at all."""

    rtype: int
    ttl_s: int
    rdatas: tuple[bytes, ...]
    """In wire format, uncompressed."""


class Body:
    """Grows by records; knows where each name was written."""

    def __init__(self, question_name: bytes) -> None:
        self._start = HEADER_BYTES + len(question_name) + _QUESTION_TAIL_BYTES
        self._octets = bytearray()
        self._places: dict[bytes, int] = {}
        at = 0
        while question_name[at]:
            self._places[question_name[at:]] = HEADER_BYTES + at
            at += 1 + question_name[at]

    def __len__(self) -> int:
        return len(self._octets)

    def __bytes__(self) -> bytes:
        return bytes(self._octets)

    def add(self, name: bytes, records: RecordSet) -> int:
        """Write a record set; return how many records it has."""
        ttl = records.ttl_s.to_bytes(4, "big")
        for rdata in records.rdatas:
            self._add_name(name)
            self._octets += records.rtype.to_bytes(2, "big") + CLASS_IN.to_bytes(2, "big") + ttl
            self._add_data(records.rtype, rdata)
        return len(records.rdatas)

    def _add_data(self, rtype: int, rdata: bytes) -> None:
        at_length = len(self._octets)
        self._octets += b"\0\0"
        if (shape := _NAMES_IN.get(rtype)) is None:
            self._octets += rdata
        else:
            at, count = shape
            self._octets += rdata[:at]
            for _ in range(count):
                end = _end_of_name(rdata, at)
                self._add_name(rdata[at:end])
                at = end
            self._octets += rdata[at:]
        length = len(self._octets) - at_length - 2
        self._octets[at_length : at_length + 2] = length.to_bytes(2, "big")

    def _add_name(self, name: bytes) -> None:
        at = 0
        while name[at]:
            rest = name[at:]
            place = self._places.get(rest)
            if place is not None:
                self._octets += (0xC000 | place).to_bytes(2, "big")
                return
            here = self._start + len(self._octets)
            if here <= _MAX_POINTER:
                self._places[rest] = here
            after = at + 1 + name[at]
            self._octets += name[at:after]
            at = after
        self._octets += ROOT


def _end_of_name(rdata: bytes, at: int) -> int:
    while rdata[at]:
        at += 1 + rdata[at]
    return at + 1
