r"""DNS queries, bytes to values, and names. Pure.

A stranger's bytes are read here and nowhere else: the header, one question, and of the additional
records the OPT alone (RFC 1035 section 4, RFC 6891). What may follow a header is decided by
lengths alone, no name is followed through a pointer, and so nothing here can loop.

    id 2 | QR 1, opcode 4, AA TC RD RA 1 each, Z AD CD 1 each, rcode 4 | four counts, 2 each
    question: name, type 2, class 2
    OPT:      0, type 41, payload 2, extended rcode 1, version 1, DO 1 and Z 15 bits, length 2,
              options: (code 2, length 2, bytes)*

Names are keys of tables all over this package, in lower case (``services.kernel.dnsnames``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from services.kernel.dnsnames import MAX_LABEL_BYTES, MAX_NAME_BYTES
from services.kernel.errors import WireError

HEADER_BYTES: Final = 12
MAX_ADDITIONAL: Final = 8
CLASS_IN: Final = 1
OPTION_COOKIE: Final = 10
_QUERY_TAIL_BYTES: Final = 4
_RECORD_TAIL_BYTES: Final = 10
_POINTER: Final = 0xC0


class Rcode(IntEnum):
    """What a response says of the query (RFC 6895)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Type(IntEnum):
    """The types of records that are known by name here."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    RRSIG = 46
    NSEC = 47
    DNSKEY = 48
    TLSA = 52
    TKEY = 249
    TSIG = 250
    IXFR = 251
    AXFR = 252
    MAILB = 253
    MAILA = 254
    ANY = 255
    CAA = 257


class Flag(IntEnum):
    """Bits of the header's second pair of octets."""

    QR = 0x8000
    AA = 0x0400
    TC = 0x0200
    RD = 0x0100
    RA = 0x0080
    AD = 0x0020
    CD = 0x0010


OPCODE_MASK: Final = 0x7800
_IXFR: Final = Type.IXFR.to_bytes(2, "big")


class QueryError(WireError):
    """A query that gets no answer but an rcode; where ``rcode`` is None, nothing at all."""

    default_code = "bad_query"

    def __init__(self, what: str, *, rcode: Rcode | None) -> None:
        super().__init__(what)
        self.rcode = rcode


@dataclass(frozen=True, slots=True, kw_only=True)
class Edns:
    """What the OPT of a query says."""

    payload_bytes: int
    version: int
    dnssec_ok: bool
    client_cookie: bytes
    server_cookie: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question; ``name`` is in lower case, ``question`` as it was asked."""

    message_id: bytes
    flags: int
    question: bytes
    name: bytes
    qtype: int
    qclass: int
    edns: Edns | None


def parse_query(data: bytes) -> Query:
    """Parse a query.

    Raises:
        QueryError: it is none, or malformed; nothing else is ever raised.
    """
    flags = parse_header(data)
    counts = data[4:12]
    if counts[:4] != b"\0\1\0\0" or counts[4] or counts[6] or counts[7] > MAX_ADDITIONAL:
        raise QueryError("other counts than a query has", rcode=Rcode.FORMERR)
    end = _skip_name(data, HEADER_BYTES)
    after = end + _QUERY_TAIL_BYTES
    if after > len(data):
        raise QueryError("cut short in the question", rcode=Rcode.FORMERR)
    if counts[5]:
        # One that wants to be told what changed says what it has (RFC 1995, 3): nobody is told.
        is_transfer = counts[5] == 1 and data[end : end + 2] == _IXFR
        rcode = Rcode.REFUSED if is_transfer else Rcode.FORMERR
        raise QueryError("other counts than a query has", rcode=rcode)
    edns = _edns(data, after, counts[7])
    return Query(
        message_id=data[:2],
        flags=flags,
        question=data[HEADER_BYTES:after],
        name=data[HEADER_BYTES:end].lower(),
        qtype=data[end] << 8 | data[end + 1],
        qclass=data[end + 2] << 8 | data[end + 3],
        edns=edns,
    )


def parse_header(data: bytes) -> int:
    """Return the flags of a query.

    Raises:
        QueryError: too short, a response (which is never answered, so that no two servers talk for
            ever), or another operation than a query.
    """
    if len(data) < HEADER_BYTES or data[2] & 0x80:
        raise QueryError("not a query", rcode=None)
    flags = data[2] << 8 | data[3]
    if flags & OPCODE_MASK:
        raise QueryError("another operation than a query", rcode=Rcode.NOTIMP)
    return flags


def _skip_name(data: bytes, at: int) -> int:
    """Return where a name ends that has no pointer in it.

    Raises:
        QueryError: it does not end, is too long, or has a label of another kind.
    """
    start, size = at, len(data)
    while at < size:
        length = data[at]
        if length > MAX_LABEL_BYTES:
            raise QueryError("a label of another kind", rcode=Rcode.FORMERR)
        at += 1 + length
        if at - start > MAX_NAME_BYTES:
            raise QueryError("a name that is too long", rcode=Rcode.FORMERR)
        if length == 0:
            return at
    raise QueryError("cut short in a name", rcode=Rcode.FORMERR)


def _skip_owner(data: bytes, at: int) -> int:
    """Return where an owner's name ends; a pointer back ends it, and is not followed.

    Raises:
        QueryError: see ``_skip_name``; or a pointer that does not point back.
    """
    start, size = at, len(data)
    while at + 1 < size:
        length = data[at]
        if length >= _POINTER:
            target = (length & 0x3F) << 8 | data[at + 1]
            if not HEADER_BYTES <= target < start:
                raise QueryError("a pointer that does not point back", rcode=Rcode.FORMERR)
            return at + 2
        if length == 0 or length > MAX_LABEL_BYTES:
            return _skip_name(data, at)
        at += 1 + length
        if at - start > MAX_NAME_BYTES:
            break
    raise QueryError("cut short in a name", rcode=Rcode.FORMERR)


def _edns(data: bytes, at: int, count: int) -> Edns | None:
    """Walk over the additional records; return what the OPT among them says, if there is one.

    Raises:
        QueryError: cut short, two OPT, or anything after the last record.
    """
    edns: Edns | None = None
    size = len(data)
    for _ in range(count):
        end = _skip_owner(data, at)
        body = end + _RECORD_TAIL_BYTES
        if body > size:
            raise QueryError("cut short in a record", rcode=Rcode.FORMERR)
        after = body + (data[body - 2] << 8 | data[body - 1])
        if after > size:
            raise QueryError("cut short in a record", rcode=Rcode.FORMERR)
        if data[end : end + 2] == b"\0\x29":
            if edns is not None or end - at != 1:
                raise QueryError("two OPT, or one with a name", rcode=Rcode.FORMERR)
            edns = _parse_opt(data[end + 2 : body], data[body:after])
        at = after
    if at != size:
        raise QueryError("something follows the message", rcode=Rcode.FORMERR)
    return edns


def _parse_opt(head: bytes, options: bytes) -> Edns:
    client = server = b""
    at, size = 0, len(options)
    while at < size:
        if at + 4 > size:
            raise QueryError("cut short in an option", rcode=Rcode.FORMERR)
        code = options[at] << 8 | options[at + 1]
        after = at + 4 + (options[at + 2] << 8 | options[at + 3])
        if after > size:
            raise QueryError("cut short in an option", rcode=Rcode.FORMERR)
        if code == OPTION_COOKIE and not client:
            client, server = _parse_cookie(options[at + 4 : after])
        at = after
    return Edns(
        payload_bytes=head[0] << 8 | head[1],
        version=head[3],
        dnssec_ok=bool(head[4] & 0x80),
        client_cookie=client,
        server_cookie=server,
    )


def _parse_cookie(value: bytes) -> tuple[bytes, bytes]:
    """Return the two parts of a cookie (RFC 7873 section 4)."""
    if len(value) != 8 and not 16 <= len(value) <= 40:
        raise QueryError("a cookie of no allowed length", rcode=Rcode.FORMERR)
    return value[:8], value[8:]
