"""A question to one name server, and its answer as far as it can be believed. Pure.

An answer counts if it has the id, the question in the very case it was asked in, and comes from the
server asked; the last is the socket's to see. All else is not an answer at all: whoever waits goes
on waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.edge.dns.wire import CLASS_IN, HEADER_BYTES, OPCODE_MASK, Flag
from services.kernel.dnsnames import MAX_LABEL_BYTES, MAX_NAME_BYTES, ROOT
from services.kernel.errors import WireError

PAYLOAD_BYTES: Final = 1232
MAX_ANSWERS: Final = 256
_FIXED_BYTES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked; ``name`` in wire format, its letters in whatever case."""

    message_id: bytes
    name: bytes
    rtype: int

    @property
    def section(self) -> bytes:
        """The question as it stands in both messages."""
        return self.name + self.rtype.to_bytes(2, "big") + CLASS_IN.to_bytes(2, "big")

    def encode(self) -> bytes:
        """Return the query: no recursion wanted, EDNS."""
        head = self.message_id + b"\0\0\0\1\0\0\0\0\0\1"
        opt = b"\0\0\x29" + PAYLOAD_BYTES.to_bytes(2, "big") + bytes(6)
        return head + self.section + opt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server answered; ``rdatas`` are those of the type asked for, at the name itself."""

    rcode: int
    is_authoritative: bool
    is_truncated: bool
    rdatas: tuple[bytes, ...] = ()

    def texts(self) -> tuple[bytes, ...]:
        """Return TXT data, the strings of each record put together.

        Raises:
            WireError: a string runs beyond its record.
        """
        return tuple(map(_joined, self.rdatas))


def mixed_case(name: bytes, bits: int) -> bytes:
    """Return a name whose letters are large where a bit is set (0x20)."""
    mixed = bytearray(name)
    for at, octet in enumerate(mixed):
        if 0x61 <= octet <= 0x7A:
            mixed[at] = octet & ~(0x20 * (bits & 1))
            bits >>= 1
    return bytes(mixed)


def parse_reply(data: bytes, question: Question) -> Reply:
    """Parse what came back.

    Raises:
        WireError: no answer to this question, or malformed; nothing else is ever raised.
    """
    end = HEADER_BYTES + len(question.section)
    if data[:2] != question.message_id or data[HEADER_BYTES:end] != question.section:
        raise WireError("an answer to another question")
    flags = data[2] << 8 | data[3]
    if not flags & Flag.QR or flags & OPCODE_MASK or data[4:6] != b"\0\1":
        raise WireError("not an answer")
    reply = Reply(
        rcode=flags & 0xF,
        is_authoritative=bool(flags & Flag.AA),
        is_truncated=bool(flags & Flag.TC),
    )
    if reply.is_truncated:
        return reply
    count = data[6] << 8 | data[7]
    if count > MAX_ANSWERS:
        raise WireError("more answers than anybody needs")
    return Reply(
        rcode=reply.rcode,
        is_authoritative=reply.is_authoritative,
        is_truncated=False,
        rdatas=tuple(_answers(data, end, count, question)),
    )


def _answers(data: bytes, at: int, count: int, question: Question) -> list[bytes]:
    found = []
    wanted, rtype = question.name.lower(), question.rtype.to_bytes(2, "big")
    for _ in range(count):
        owner, at = read_name(data, at)
        body = at + _FIXED_BYTES
        if body > len(data):
            raise WireError("cut short in a record")
        after = body + (data[body - 2] << 8 | data[body - 1])
        if after > len(data):
            raise WireError("cut short in a record")
        is_asked = data[at : at + 2] == rtype and data[at + 2 : at + 4] == b"\0\1"
        if is_asked and owner.lower() == wanted:
            found.append(data[body:after])
        at = after
    return found


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """Return a name, written out, and where it ends; each pointer leads further back.

    Raises:
        WireError: cut short, too long, a pointer that does not lead back, a label of another kind.
    """
    name, end, limit = bytearray(), 0, at
    while True:
        if at >= len(data):
            raise WireError("cut short in a name")
        length = data[at]
        if length > MAX_LABEL_BYTES:
            if length < 0xC0 or at + 1 >= len(data):
                raise WireError("a label of another kind")
            target = (length & 0x3F) << 8 | data[at + 1]
            if not HEADER_BYTES <= target < limit:
                raise WireError("a pointer that does not lead back")
            end, at, limit = end or at + 2, target, target
            continue
        after = at + 1 + length
        if after > len(data):
            raise WireError("cut short in a name")
        if not length:
            return bytes(name) + ROOT, end or after
        name += data[at:after]
        if len(name) >= MAX_NAME_BYTES:
            raise WireError("a name that is too long")
        at = after


def _joined(rdata: bytes) -> bytes:
    parts, at = bytearray(), 0
    while at < len(rdata):
        after = at + 1 + rdata[at]
        if after > len(rdata):
            raise WireError("a string beyond its record")
        parts += rdata[at + 1 : after]
        at = after
    return bytes(parts)
