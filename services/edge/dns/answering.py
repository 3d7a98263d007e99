"""The answer to a query: bytes and who asks to bytes. Pure.

Names are looked up on every query but those that were asked before: ``quick`` puts ready bodies
behind the question as it came, and is told of every name that changes. What a stranger over UDP
gets without a cookie is at most 1.5 times as long as the query; the rest of it says TC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from services.edge.dns.building import RecordSet
from services.edge.dns.heads import (
    EDNS_LIMIT_BYTES,
    PLAIN_LIMIT_BYTES,
    heads_of,
    limit_of,
    opt_of,
)
from services.edge.dns.ratelimiting import Verdict
from services.edge.dns.signedbody import SignedBody
from services.edge.dns.wire import (
    CLASS_IN,
    OPCODE_MASK,
    OPTION_COOKIE,
    Flag,
    Query,
    QueryError,
    Rcode,
    Type,
    parse_query,
)
from services.edge.dns.zone import NEGATIVE_TTL_S
from services.kernel.dnsnames import is_below, parents_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from services.edge.dns.cookies import Cookies
    from services.edge.dns.ratelimiting import ResponseRates
    from services.edge.dns.signing import Signing, ZoneSigner
    from services.edge.dns.zone import Zone

MAX_CHAIN: Final = 8
MAX_READY: Final = 1 << 18
ANY_TTL_S: Final = 3600
_ANY_DATA: Final = b"\x07RFC8482\0"

# Answered with REFUSED whatever the name: transfers, and types that no zone holds (RFC 6895).
_REFUSED_TYPES: Final = frozenset(
    {Type.OPT, Type.TKEY, Type.TSIG, Type.IXFR, Type.AXFR, Type.MAILB, Type.MAILA}
)
# What stands beside an alias (RFC 4034 sections 3 and 4).
_OF_DNSSEC: Final = frozenset({Type.RRSIG, Type.NSEC})
_OWN_TYPES: Final = frozenset({Type.CNAME, Type.ANY})
# What is kept ready. No octet of these types is a letter, so that a question can be looked up in
# lower case as it stands.
# Not NS: the addresses that go with it change under other names.
READY_TYPES: Final = (
    Type.A,
    Type.CNAME,
    Type.PTR,
    Type.MX,
    Type.TXT,
    Type.AAAA,
    Type.SRV,
    Type.CAA,
)
_PLAIN: Final = {b"\0\0\0\1\0\0\0\0\0\0": 0, b"\1\0\0\1\0\0\0\0\0\0": 1}
_WITH_OPT: Final = {b"\0\0\0\1\0\0\0\0\0\1": 2, b"\1\0\0\1\0\0\0\0\0\1": 3}
_OPT_BYTES: Final = 11
_BARE_OPT: Final = b"\0\0\x29" + EDNS_LIMIT_BYTES.to_bytes(2, "big") + bytes(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks, as far as that is known."""

    address: bytes
    """Packed, 4 or 16 octets."""
    network: bytes
    """What of it stands for its network."""
    inside: bool
    stream: bool = False


@dataclass(slots=True, kw_only=True)
class Reply:
    """What is to be said, before it is known how much of it fits."""

    rcode: Rcode
    answer_count: int = 0
    authority_count: int = 0
    additional_count: int = 0
    body: bytes = b""
    needed_bytes: int = 0
    """How much of the body comes before the additional records, which may be left out."""
    is_ours: bool = True
    subject: bytes = b""
    """What this answer has in common with others, for the rate."""
    is_too_long: bool = False
    """It is certain already that no such answer fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soa:
    """What the SOA of every zone here says, but for its serial."""

    mname: bytes
    rname: bytes
    refresh_s: int = 3600
    retry_s: int = 600
    expire_s: int = 604_800

    def rdata(self, serial: int) -> bytes:
        """Return the data of the record."""
        times = (self.refresh_s, self.retry_s, self.expire_s, NEGATIVE_TTL_S)
        numbers = b"".join(one.to_bytes(4, "big") for one in (serial, *times))
        return self.mname + self.rname + numbers


@dataclass(slots=True)
class Counts:
    """What was answered; names are fixed."""

    quick: int = 0
    looked_up: int = 0
    truncated: int = 0
    ignored: int = 0
    by_rcode: dict[Rcode, int] = field(default_factory=lambda: dict.fromkeys(Rcode, 0))


class Answerer:
    """Answers queries for some zones."""

    def __init__(
        self,
        *,
        zones: Sequence[Zone],
        soa: Soa,
        serial: Callable[[], int],
        cookies: Cookies,
        rates: ResponseRates,
        signer: ZoneSigner | None = None,
    ) -> None:
        self._zones = {zone.apex: zone for zone in zones}
        self._soa = soa
        self._serial = serial
        self._cookies = cookies
        self._rates = rates
        self._signer = signer
        self._ready: dict[bytes, tuple[tuple[bytes, ...], bytes]] = {}
        self._ready_inside: dict[bytes, tuple[tuple[bytes, ...], bytes]] = {}
        self._kept: dict[bytes, frozenset[bytes]] = {}
        self._tails: dict[frozenset[bytes], frozenset[bytes]] = {}
        self.counts = Counts()

    def quick(self, data: bytes, network: bytes, *, inside: bool, now_s: float) -> bytes | None:
        """Return the answer if it lies ready for such a query over UDP, else None."""
        which = _PLAIN.get(data[2:12])
        if which is not None:
            question = data[12:]
        else:
            which = _WITH_OPT.get(data[2:12])
            tail = data[-_OPT_BYTES:]
            if which is None or tail[:3] != b"\0\0\x29" or tail[5:] != b"\0\0\0\0\0\0":
                return None
            question = data[12:-_OPT_BYTES]
        ready = (self._ready_inside if inside else self._ready).get(question.lower())
        if ready is None:
            return None
        heads, body = ready
        # Short enough for every client, and no more than half again what a stranger sent.
        size = len(data)
        if size + len(body) > PLAIN_LIMIT_BYTES or not (inside or 2 * len(body) <= size):
            return None
        if not (inside or self._rates.passes(network, now_s=now_s)):
            return None
        self.counts.quick += 1
        if which < 2:
            return data[:2] + heads[which] + question + body
        return data[:2] + heads[which] + question + body + _BARE_OPT

    def answer(self, data: bytes, asker: Asker, *, now_s: float, clock_s: int) -> bytes | None:
        """Return the answer to a query, or None where there is none to be given.

        Args:
            data: what came.
            asker: who asks.
            now_s: seconds that never go back.
            clock_s: seconds since 1970, for cookies.
        """
        try:
            query = parse_query(data)
        except QueryError as error:
            if error.rcode is None:
                self.counts.ignored += 1
                return None
            return self._bare(data, error.rcode, asker, now_s)
        cookie, is_proven = self._cookie(query, asker, clock_s)
        is_free = asker.stream or asker.inside or is_proven
        reply = self._reply(query, asker, clock_s, is_free=is_free)
        limit = 0 if reply.is_too_long else limit_of(query, stream=asker.stream)
        if not is_free:
            limit = min(limit, len(data) * 3 // 2)
            verdict = self._rates.verdict(asker.network, reply.subject, now_s=now_s)
            if verdict is Verdict.DROP:
                return None
            if verdict is Verdict.SLIP:
                limit = 0
        self.counts.looked_up += 1
        self.counts.by_rcode[reply.rcode] += 1
        return self._pack(query, reply, cookie, limit)

    def rate_counts(self) -> Mapping[str, int]:
        """Return what became of answers over the rate."""
        return {
            "rate_slipped": self._rates.slipped_count,
            "rate_dropped": self._rates.dropped_count,
        }

    def changed(self, name: bytes) -> None:
        """Forget what lies ready for a name."""
        for tail in self._kept.pop(name, ()):
            self._ready.pop(name + tail, None)
            self._ready_inside.pop(name + tail, None)

    def all_changed(self) -> None:
        """Forget everything that lies ready."""
        self._ready.clear()
        self._ready_inside.clear()
        self._kept.clear()

    def _bare(self, data: bytes, rcode: Rcode, asker: Asker, now_s: float) -> bytes | None:
        """Return a header alone: the question can't be trusted to be one."""
        free = asker.stream or asker.inside
        verdict = Verdict.SEND
        if not free:
            verdict = self._rates.verdict(asker.network, b"", now_s=now_s)
        if verdict is not Verdict.SEND:
            return None
        self.counts.by_rcode[rcode] += 1
        flags = (data[2] << 8 | data[3]) & (OPCODE_MASK | Flag.RD) | Flag.QR | rcode
        return data[:2] + flags.to_bytes(2, "big") + bytes(8)

    def _cookie(self, query: Query, asker: Asker, clock_s: int) -> tuple[bytes, bool]:
        """Return the option to send, and whether the asker showed a cookie of ours."""
        edns = query.edns
        if edns is None or not edns.client_cookie:
            return b"", False
        client, server = edns.client_cookie, edns.server_cookie
        is_proven = self._cookies.is_good(client, server, asker.address, now_s=clock_s)
        renewed = self._cookies.renewed(client, server, asker.address, now_s=clock_s)
        value = client + renewed
        head = OPTION_COOKIE.to_bytes(2, "big") + len(value).to_bytes(2, "big")
        return head + value, is_proven

    def _reply(self, query: Query, asker: Asker, clock_s: int, *, is_free: bool) -> Reply:
        if query.edns is not None and query.edns.version:
            return Reply(rcode=Rcode.BADVERS, is_ours=False)
        if query.qclass != CLASS_IN or query.qtype in _REFUSED_TYPES:
            return Reply(rcode=Rcode.REFUSED, is_ours=False)
        zone = self._zone_of(query.name, inside=asker.inside)
        if zone is None:
            return Reply(rcode=Rcode.REFUSED, is_ours=False)
        signing = self._signing(query, zone, clock_s)
        if signing is not None and not is_free:
            # A signature is longer than what a stranger may get; none is made for nothing.
            return Reply(rcode=Rcode.NOERROR, subject=zone.apex, is_too_long=True)
        return self._look_up(query, zone, asker, signing)

    def _signing(self, query: Query, zone: Zone, clock_s: int) -> Signing | None:
        """Return what signs the answer, where that is wanted and can be."""
        if self._signer is None or query.edns is None or not query.edns.dnssec_ok:
            return None
        return self._signer.at(clock_s) if zone.apex == self._signer.apex else None

    def _zone_of(self, name: bytes, *, inside: bool) -> Zone | None:
        for apex in (name, *parents_of(name)):
            zone = self._zones.get(apex)
            if zone is not None and (inside or zone.is_open):
                return zone
        return None

    def _look_up(self, query: Query, zone: Zone, asker: Asker, signing: Signing | None) -> Reply:
        """Follow the name to its records, over aliases within the zone, at most so many."""
        body, count = SignedBody(query.name, signing), 0
        own = _OWN_TYPES if signing is None else _OWN_TYPES | _OF_DNSSEC
        name, seen = query.name, {query.name}
        while True:
            sets = self._sets(zone, name, inside=asker.inside)
            alias = sets.get(Type.CNAME) if sets else None
            if alias is None or query.qtype in own:
                break
            count += body.add(name, alias)
            name = alias.rdatas[0].lower()
            if name in seen or len(seen) == MAX_CHAIN or not is_below(name, zone.apex):
                return _whole(Rcode.NOERROR, body, count, subject=query.name)
            seen.add(name)
        records = None if sets is None else _asked(query.qtype, name, sets, body)
        if records is None:
            reply = self._negative(zone, body, count, is_there=sets is not None)
            reply.authority_count += body.deny(
                name, sets, lambda other: self._sets(zone, other, inside=asker.inside)
            )
            reply.body, reply.needed_bytes = bytes(body), len(body)
            return reply
        count += body.add(name, records)
        reply = _whole(Rcode.NOERROR, body, count, subject=query.name)
        if records.rtype == Type.NS:
            self._add_glue(reply, body, zone, records, asker)
        if name == query.name and signing is None and query.qtype in READY_TYPES:
            self._keep(query, reply, asker)
        return reply

    def _sets(self, zone: Zone, name: bytes, *, inside: bool) -> Mapping[int, RecordSet] | None:
        sets = zone.find(name, inside=inside)
        if name == zone.apex:
            own: dict[int, RecordSet] = {Type.SOA: self._soa_set()}
            published = self._signer.keys() if self._signer and name == self._signer.apex else None
            if published is not None:
                own[Type.DNSKEY] = published.keys
            return {**(sets or {}), **own}
        return sets

    def _soa_set(self) -> RecordSet:
        rdata = self._soa.rdata(self._serial())
        return RecordSet(rtype=Type.SOA, ttl_s=NEGATIVE_TTL_S, rdatas=(rdata,))

    def _negative(self, zone: Zone, body: SignedBody, count: int, *, is_there: bool) -> Reply:
        """No such name, or no such type: the SOA says for how long that may be believed."""
        rcode = Rcode.NOERROR if is_there else Rcode.NXDOMAIN
        authority = body.add(zone.apex, self._soa_set())
        # One subject for all names that are not there: they are made up easily.
        reply = _whole(rcode, body, count, subject=zone.apex)
        reply.authority_count = authority
        return reply

    def _add_glue(
        self, reply: Reply, body: SignedBody, zone: Zone, records: RecordSet, asker: Asker
    ) -> None:
        for target in records.rdatas:
            sets = zone.find(target, inside=asker.inside) if is_below(target, zone.apex) else None
            for rtype in (Type.A, Type.AAAA):
                if sets and rtype in sets:
                    reply.additional_count += body.add(target, sets[rtype])
        reply.body = bytes(body)

    def _keep(self, query: Query, reply: Reply, asker: Asker) -> None:
        """Keep the answer ready until its name changes."""
        table = self._ready_inside if asker.inside else self._ready
        if len(table) >= MAX_READY:
            self.all_changed()
        tail = query.question[len(query.name) :]
        table[query.name + tail] = (heads_of(reply.answer_count), reply.body)
        kept = self._kept.get(query.name, frozenset()) | {tail}
        # One set for all names of which the same was asked.
        self._kept[query.name] = self._tails.setdefault(kept, kept)

    def _pack(self, query: Query, reply: Reply, cookie: bytes, limit: int) -> bytes:
        opt = opt_of(query, reply.rcode, cookie)
        flags = query.flags & (Flag.RD | Flag.CD) | Flag.QR | (reply.rcode & 0xF)
        if reply.is_ours:
            flags |= Flag.AA
        room = limit - 12 - len(query.question) - len(opt)
        additional, body = reply.additional_count, reply.body
        if len(body) > room:
            additional, body = 0, body[: reply.needed_bytes]
        answers, authority = reply.answer_count, reply.authority_count
        if len(body) > room:
            flags |= Flag.TC
            answers = authority = 0
            body = b""
            self.counts.truncated += 1
        counts = (1, answers, authority, additional + bool(opt))
        head = flags.to_bytes(2, "big") + b"".join(one.to_bytes(2, "big") for one in counts)
        return query.message_id + head + query.question + body + opt


def _asked(
    qtype: int, name: bytes, sets: Mapping[int, RecordSet], body: SignedBody
) -> RecordSet | None:
    """Return what is told of a name to one who asks for a type."""
    if qtype == Type.ANY and sets:
        return RecordSet(rtype=Type.HINFO, ttl_s=ANY_TTL_S, rdatas=(_ANY_DATA,))
    return body.own(qtype, name, sets) if qtype in _OF_DNSSEC else sets.get(qtype)


def _whole(rcode: Rcode, body: SignedBody, count: int, *, subject: bytes) -> Reply:
    return Reply(
        rcode=rcode, answer_count=count, body=bytes(body), needed_bytes=len(body), subject=subject
    )
