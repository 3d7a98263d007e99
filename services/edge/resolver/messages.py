"""A question to an upstream, its answer as far as it can be believed, and what an endpoint is told.

Pure. An upstream's octets are read here and nowhere else; none goes on to an endpoint as it came:
names are written out, records that do not belong to the question are dropped, and the rest is
written anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from services.edge.dns.building import Body, RecordSet
from services.edge.dns.replies import PAYLOAD_BYTES, read_name
from services.edge.dns.wire import CLASS_IN, HEADER_BYTES, OPCODE_MASK, Flag, Query, Rcode, Type
from services.edge.resolver.hints import addresses_in
from services.kernel.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Address, IPv6Address

MAX_RECORDS: Final = 512
MAX_CHAIN: Final = 16
MAX_TTL_S: Final = 86_400
MAX_NEGATIVE_TTL_S: Final = 900
STREAM_LIMIT_BYTES: Final = 65_535
PLAIN_LIMIT_BYTES: Final = 512
_FIXED_BYTES: Final = 10
_RRSIG: Final = 46
_DNSSEC: Final = frozenset({_RRSIG, 47, 50})

# Where names stand in data that may be compressed (RFC 3597 section 4): octets before, and names.
_NAMES_IN: Final = {
    int(Type.NS): (0, 1),
    int(Type.CNAME): (0, 1),
    int(Type.PTR): (0, 1),
    int(Type.SOA): (0, 2),
    int(Type.MX): (2, 1),
    int(Type.SRV): (6, 1),
    17: (0, 2),  # RP
    18: (2, 1),  # AFSDB
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an endpoint wants to know; ``name`` in lower case."""

    name: bytes
    rtype: int
    dnssec_ok: bool = False
    checking_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record; ``rdata`` uncompressed."""

    name: bytes
    rtype: int
    ttl_s: int
    rdata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What there is to say."""

    rcode: int
    answers: tuple[Entry, ...] = ()
    authority: tuple[Entry, ...] = ()

    @property
    def ttl_s(self) -> int:
        """For how long this may be believed."""
        if self.rcode == Rcode.NOERROR and self.answers:
            return min(one.ttl_s for one in self.answers)
        # Without an SOA nothing says for how long a name may be held not to be (RFC 2308).
        starts = [one for one in self.authority if one.rtype == Type.SOA]
        lasting = [min(one.ttl_s, int.from_bytes(one.rdata[-4:], "big")) for one in starts]
        return min([*lasting, MAX_NEGATIVE_TTL_S]) if lasting else 0

    @property
    def size_bytes(self) -> int:
        """About how much room this takes."""
        return 200 + sum(120 + len(one.name) + len(one.rdata) for one in self._all())

    def _all(self) -> Iterable[Entry]:
        return (*self.answers, *self.authority)

    def without_addresses(self, is_refused: Callable[[IPv4Address | IPv6Address], bool]) -> Answer:
        """Return the answer without the records that lead to addresses it may not name."""

        def stays(one: Entry) -> bool:
            try:
                return not any(map(is_refused, addresses_in(one.rtype, one.rdata)))
            except WireError:
                return False

        return replace(self, answers=tuple(filter(stays, self.answers)))


def asked_in(query: Query) -> Asked:
    """Return what a query wants to know."""
    return Asked(
        name=query.name,
        rtype=query.qtype,
        dnssec_ok=query.edns is not None and query.edns.dnssec_ok,
        checking_disabled=bool(query.flags & Flag.CD),
    )


def encode_query(asked: Asked, message_id: bytes, name: bytes) -> bytes:
    """Return the query to an upstream, for a name in whatever case."""
    flags = Flag.RD | (Flag.CD if asked.checking_disabled else 0)
    head = message_id + flags.to_bytes(2, "big") + b"\0\1\0\0\0\0\0\1"
    opt = b"\0\0\x29" + PAYLOAD_BYTES.to_bytes(2, "big") + b"\0\0"
    return (
        head
        + _section(name, asked.rtype)
        + opt
        + (b"\x80\0" if asked.dnssec_ok else b"\0\0")
        + b"\0\0"
    )


def parse_answer(
    data: bytes, asked: Asked, message_id: bytes, name: bytes, *, stream: bool = False
) -> Answer | None:
    """Parse what came back; None where the question is to be asked again over TCP.

    That is where the answer was cut short, and where it repeats the question in other letters: it
    may be forged, or come from one of the servers that do not keep the case.

    Raises:
        WireError: no answer to this question, or malformed; nothing else is ever raised.
    """
    section = _section(name, asked.rtype)
    end = HEADER_BYTES + len(section)
    told = data[HEADER_BYTES:end]
    if data[:2] != message_id or told.lower() != section.lower():
        raise WireError("an answer to another question")
    flags = data[2] << 8 | data[3]
    if not flags & Flag.QR or flags & OPCODE_MASK or data[4:6] != b"\0\1":
        raise WireError("not an answer")
    if not stream and (told != section or flags & Flag.TC):
        return None
    counts = [data[at] << 8 | data[at + 1] for at in (6, 8, 10)]
    if sum(counts) > MAX_RECORDS:
        raise WireError("more records than anybody needs")
    answers, at = _entries(data, end, counts[0])
    authority, at = _entries(data, at, counts[1])
    extended, at = _extended_rcode(data, at, counts[2])
    if at != len(data):
        raise WireError("something follows the message")
    rcode = flags & 0xF | extended << 4
    return _believed(Answer(rcode=rcode, answers=answers, authority=authority), asked)


def encode_answer(query: Query, answer: Answer, *, age_s: int = 0, limit: int) -> bytes:
    """Return what an endpoint is told, at most ``limit`` octets."""
    body = Body(query.name)
    counts = [_write(body, part, age_s) for part in (answer.answers, answer.authority)]
    opt = _opt(query, answer.rcode)
    flags = query.flags & (Flag.RD | Flag.CD) | Flag.QR | Flag.RA | answer.rcode & 0xF
    octets = bytes(body)
    if HEADER_BYTES + len(query.question) + len(octets) + len(opt) > limit:
        flags, counts, octets = flags | Flag.TC, [0, 0], b""
    numbers = (1, *counts, 1 if opt else 0)
    head = flags.to_bytes(2, "big") + b"".join(one.to_bytes(2, "big") for one in numbers)
    return query.message_id + head + query.question + octets + opt


def loose_end(answer: Answer, asked: Asked) -> bytes | None:
    """Return the name at which somebody else has to be asked: where an alias leads out."""
    if any(one.rtype in (asked.rtype, Type.SOA) for one in (*answer.answers, *answer.authority)):
        return None
    aliases = [one for one in answer.answers if one.rtype == Type.CNAME]
    return aliases[-1].rdata.lower() if aliases and asked.rtype != Type.ANY else None


def limit_of(query: Query, *, stream: bool) -> int:
    """Return how long an answer may be."""
    if stream:
        return STREAM_LIMIT_BYTES
    if query.edns is None:
        return PLAIN_LIMIT_BYTES
    return min(max(query.edns.payload_bytes, PLAIN_LIMIT_BYTES), PAYLOAD_BYTES)


def _section(name: bytes, rtype: int) -> bytes:
    return name + rtype.to_bytes(2, "big") + CLASS_IN.to_bytes(2, "big")


def _entries(data: bytes, at: int, count: int) -> tuple[tuple[Entry, ...], int]:
    found = []
    for _ in range(count):
        owner, body, after = _record(data, at)
        rtype = data[body - 10] << 8 | data[body - 9]
        ttl = int.from_bytes(data[body - 6 : body - 2], "big")
        # A TTL with the highest bit set is none (RFC 2181 section 8).
        ttl_s = 0 if ttl >> 31 else min(ttl, MAX_TTL_S)
        if data[body - 8 : body - 6] == b"\0\1":
            rdata = _written_out(data, rtype, body, after)
            found.append(Entry(name=owner.lower(), rtype=rtype, ttl_s=ttl_s, rdata=rdata))
        at = after
    return tuple(found), at


def _record(data: bytes, at: int) -> tuple[bytes, int, int]:
    """Return the owner of a record, and where its data begins and ends."""
    owner, at = read_name(data, at)
    body = at + _FIXED_BYTES
    if body > len(data):
        raise WireError("cut short in a record")
    after = body + (data[body - 2] << 8 | data[body - 1])
    if after > len(data):
        raise WireError("cut short in a record")
    return owner, body, after


def _written_out(data: bytes, rtype: int, body: int, after: int) -> bytes:
    """Return a record's data with its names in full."""
    if (shape := _NAMES_IN.get(rtype)) is None:
        if (rtype, after - body) in ((Type.A, 4), (Type.AAAA, 16)) or rtype not in (
            Type.A,
            Type.AAAA,
        ):
            return data[body:after]
        raise WireError("an address of another length")
    start, count = shape
    written, at = data[body : body + start], body + start
    for _ in range(count):
        name, at = read_name(data, at)
        written += name
    if (
        at > after
        or (rtype == Type.SOA and after - at != 20)
        or (rtype != Type.SOA and at != after)
    ):
        raise WireError("a name does not end where its record does")
    return written + data[at:after]


def _extended_rcode(data: bytes, at: int, count: int) -> tuple[int, int]:
    extended = 0
    for _ in range(count):
        owner, body, after = _record(data, at)
        if data[body - 10 : body - 8] == b"\0\x29" and owner == b"\0":
            extended = data[body - 6]
        at = after
    return extended, at


def _believed(answer: Answer, asked: Asked) -> Answer:
    """Return what belongs to the question: its name, and those to which its aliases lead."""
    chain = {asked.name}
    aliases = {one.name: one.rdata.lower() for one in answer.answers if one.rtype == Type.CNAME}
    at = asked.name
    for _ in range(MAX_CHAIN):
        if asked.rtype in (Type.CNAME, Type.ANY) or at not in aliases or aliases[at] in chain:
            break
        at = aliases[at]
        chain.add(at)
    wanted = {asked.rtype, int(Type.CNAME)} | (_DNSSEC if asked.dnssec_ok else set())
    answers = tuple(
        one
        for one in answer.answers
        if one.name in chain and (one.rtype in wanted or asked.rtype == Type.ANY)
    )
    proofs = {int(Type.SOA)} | (_DNSSEC if asked.dnssec_ok else set())
    has_data = any(one.rtype == asked.rtype for one in answers)
    keeps = asked.dnssec_ok or not has_data
    authority = tuple(one for one in answer.authority if keeps and one.rtype in proofs)
    return replace(answer, answers=answers, authority=authority)


def _write(body: Body, entries: tuple[Entry, ...], age_s: int) -> int:
    for one in entries:
        records = RecordSet(rtype=one.rtype, ttl_s=max(one.ttl_s - age_s, 0), rdatas=(one.rdata,))
        body.add(one.name, records)
    return len(entries)


def _opt(query: Query, rcode: int) -> bytes:
    if query.edns is None:
        return b""
    flags = b"\x80\0" if query.edns.dnssec_ok else b"\0\0"
    return b"\0\0\x29" + PAYLOAD_BYTES.to_bytes(2, "big") + bytes([rcode >> 4, 0]) + flags + b"\0\0"
