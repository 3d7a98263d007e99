"""What a STUN server says to a datagram, if anything. Pure; bounded; as fast as Python allows.

Most requests are the same 20 bytes but for the transaction id: ``quick`` answers those without
reading them as a message. No success or error is ever answered, so two servers can't be made to
talk to each other. A sender can be lied about: an answer to the smallest request is 48 bytes (60
over IPv6; 72 and 108 from a server with two addresses, RFC 5780), and no host is sent more than
``ANSWERS_PER_S``, so that nobody gains much by asking in another's name.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from services.edge.stun.messages import (
    BINDING_ERROR,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    COOKIE,
    FIRST_OPTIONAL,
    HEADER_BYTES,
    Address,
    Attribute,
    Message,
    attribute,
    encode,
    encode_address,
    encode_error,
    encode_unknown,
    encode_xor_address,
    fingerprint,
    parse,
)
from services.kernel.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOFTWARE: Final = b"seip"
ANSWERS_PER_S: Final = 2_000
MAX_ASKERS: Final = 65_536
MAX_UNKNOWN: Final = 16
MAX_PADDING_BYTES: Final = 1024
CHANGE_ADDRESS: Final = 4
CHANGE_PORT: Final = 2

_PLAIN: Final = BINDING_REQUEST.to_bytes(2, "big") + bytes(2) + COOKIE
_COOKIE_NUMBER: Final = int.from_bytes(COOKIE, "big")
_FINGERPRINT_BYTES: Final = 8
_XOR4_HEAD: Final = b"\x00\x20\x00\x08\x00\x01"
_XOR6_HEAD: Final = b"\x00\x20\x00\x14\x00\x02"
_KNOWN: Final = frozenset(one for one in Attribute if one < FIRST_OPTIONAL)
# What only a server with two addresses knows of (RFC 5780 section 7).
_DISCOVERY: Final = frozenset({Attribute.PADDING, Attribute.RESPONSE_PORT})
_INTEGRITIES: Final = frozenset({Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256})


class Came(StrEnum):
    """What became of a datagram; the names are fixed."""

    ANSWERED = "answered"
    CHANGED = "changed"
    """Answered from another address or port, as was asked."""
    UNKNOWN = "unknown_attribute"
    IGNORED = "ignored"
    LIMITED = "limited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The four places of a server with two addresses and two ports (RFC 5780).

    A place is a number of two bits: the upper says which address, the lower which port.
    """

    hosts: tuple[str, str]
    ports: tuple[int, int]

    def at(self, place: int) -> Address:
        """Return where a place is."""
        return self.hosts[place >> 1], self.ports[place & 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A datagram, from which place it is to be sent, and to which port of who asked."""

    data: bytes
    place: int = 0
    port: int | None = None
    """None for the one that the request came from."""


class _Budget:
    """How many answers a host, or the network of an IPv6 host, may still have in this second."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class _Asker:
    """What is the same in all answers to one host."""

    __slots__ = ("budget", "mapped4", "mapped6")

    def __init__(self, packed: bytes, budget: _Budget) -> None:
        self.budget = budget
        number = int.from_bytes(packed, "big")
        is_old = len(packed) == 4
        self.mapped4 = (number ^ _COOKIE_NUMBER).to_bytes(4, "big") if is_old else b""
        self.mapped6 = 0 if is_old else number


class Askers:
    """Who asked in this second; what is known of them is shared by all sockets of a server."""

    def __init__(self, *, per_s: int = ANSWERS_PER_S) -> None:
        self._per_s = per_s
        self._until_s = float("-inf")
        self._known: dict[str, _Asker] = {}
        self._budgets: dict[bytes, _Budget] = {}

    def find(self, host: str, now_s: float) -> _Asker:
        """Return what is known of a host."""
        if now_s >= self._until_s or len(self._known) >= MAX_ASKERS:
            self._until_s = now_s + 1.0
            self._known.clear()
            self._budgets.clear()
        asker = self._known.get(host)
        if asker is None:
            asker = self._known[host] = self._new(host)
        return asker

    def _new(self, host: str) -> _Asker:
        address = ip_address(host.partition("%")[0])
        # Nobody outside of this machine can be made to seem to ask from it.
        per_s = 1 << 62 if address.is_loopback else self._per_s
        network = address.packed[:8]
        budget = self._budgets.setdefault(network, _Budget(per_s))
        return _Asker(address.packed, budget)


class Answerer:
    """Answers what arrives at one socket."""

    def __init__(
        self,
        *,
        askers: Askers | None = None,
        places: Places | None = None,
        place: int = 0,
    ) -> None:
        """Prepare what all answers have in common.

        Args:
            askers: shared with the other sockets of the server.
            places: of a server with two addresses; a request for an answer from another one is
                refused by who has none.
            place: which of them this socket has.
        """
        self._askers = askers if askers is not None else Askers()
        self._places = places
        self._place = place
        self.counts: Counter[Came] = Counter()
        self.quick_count = 0
        told = (*self._told(place), (Attribute.SOFTWARE, SOFTWARE))
        self._tail = b"".join(attribute(kind, value) for kind, value in told)
        self._head4 = self._head(len(_XOR4_HEAD) + 6)
        self._head6 = self._head(len(_XOR6_HEAD) + 18)

    def quick(self, data: bytes, source: Sequence[object], now_s: float) -> bytes | None:
        """Return the answer to a plain request, nothing for one too many, None for other bytes.

        Args:
            data: the datagram.
            source: whence, as the socket says it: host, port, and more of IPv6.
            now_s: of a monotonic clock.
        """
        if len(data) != HEADER_BYTES or data[:8] != _PLAIN:
            return None
        host, port, *_ = source
        asker = self._askers.find(host, now_s)  # type: ignore[arg-type]  # as sockets say it
        budget = asker.budget
        if budget.left <= 0 or not port:
            self.counts[Came.LIMITED] += 1
            return b""
        budget.left -= 1
        self.quick_count += 1
        transaction = data[4:]
        masked = (port ^ 0x2112).to_bytes(2, "big")  # type: ignore[operator]  # a number
        if asker.mapped4:
            answer = b"".join(
                (self._head4, transaction, _XOR4_HEAD, masked, asker.mapped4, self._tail)
            )
        else:
            number = asker.mapped6 ^ int.from_bytes(transaction, "big")
            mapped = number.to_bytes(16, "big")
            answer = b"".join((self._head6, transaction, _XOR6_HEAD, masked, mapped, self._tail))
        return answer + fingerprint(answer)

    def answer(self, data: bytes, source: Sequence[object], now_s: float) -> Answer | None:
        """Return the answer to any datagram; None where silence is the answer."""
        host, port = str(source[0]), int(source[1])  # type: ignore[call-overload]  # a number
        try:
            request = parse(data)
            answer = self._checked(request, (host, port), now_s)
        except WireError:
            answer = None
            self.counts[Came.IGNORED] += 1
        return answer

    def reply(self, data: bytes, source: Sequence[object], now_s: float) -> bytes | None:
        """Return what to send back from the one socket that there is; None for nothing."""
        quick = self.quick(data, source, now_s)
        if quick is not None:
            return quick or None
        answer = self.answer(data, source, now_s)
        return answer.data if answer is not None else None

    def counters(self) -> Mapping[str, int]:
        """Return what became of all datagrams."""
        counts = {one.value: self.counts[one] for one in Came}
        counts[Came.ANSWERED] += self.quick_count
        return counts

    def _checked(self, request: Message, source: Address, now_s: float) -> Answer | None:
        """Answer a well-formed message.

        Raises:
            WireError: it is none that is answered.
        """
        if request.kind != BINDING_REQUEST or not source[1]:
            raise WireError("not a request that is answered")
        if any(kind in _INTEGRITIES for kind, _ in request.attributes):
            # Without passwords nobody's is right (RFC 8489 section 9.1.3 would have it checked).
            raise WireError("credentials that nobody gave")
        flags = _changes(request)
        budget = self._askers.find(source[0], now_s).budget
        if budget.left <= 0:
            self.counts[Came.LIMITED] += 1
            return None
        budget.left -= 1
        unknown = self._unknown(request, flags)
        if unknown:
            self.counts[Came.UNKNOWN] += 1
            return Answer(data=_refusal(request, unknown), place=self._place)
        place = self._place ^ flags >> 1
        port = _response_port(request)
        self.counts[Came.CHANGED if flags or port else Came.ANSWERED] += 1
        return Answer(data=self._success(request, source, place), place=place, port=port)

    def _unknown(self, request: Message, flags: int) -> list[int]:
        known = _KNOWN if self._places is not None else _KNOWN - _DISCOVERY
        unknown = [
            kind for kind, _ in request.attributes if kind < FIRST_OPTIONAL and kind not in known
        ]
        if flags and self._places is None:
            unknown.append(Attribute.CHANGE_REQUEST)
        return list(dict.fromkeys(unknown))[:MAX_UNKNOWN]

    def _success(self, request: Message, source: Address, place: int) -> bytes:
        if request.is_classic:
            attributes = [(Attribute.MAPPED_ADDRESS, encode_address(source))]
            if self._places is not None:
                sender, other = self._places.at(place), self._places.at(self._place ^ 3)
                attributes += [
                    (Attribute.SOURCE_ADDRESS, encode_address(sender)),
                    (Attribute.CHANGED_ADDRESS, encode_address(other)),
                ]
        else:
            mapped = encode_xor_address(source, request.transaction)
            attributes = [
                (Attribute.XOR_MAPPED_ADDRESS, mapped),
                *self._told(place),
                (Attribute.SOFTWARE, SOFTWARE),
                *_padding(request),
            ]
        return encode(
            Message(
                kind=BINDING_SUCCESS,
                transaction=request.transaction,
                attributes=tuple(attributes),
                has_fingerprint=not request.is_classic,
            )
        )

    def _told(self, sender: int) -> list[tuple[Attribute, bytes]]:
        """Return what RFC 5780 section 7 adds to each answer of a server with two addresses."""
        if self._places is None:
            return []
        return [
            (Attribute.RESPONSE_ORIGIN, encode_address(self._places.at(sender))),
            (Attribute.OTHER_ADDRESS, encode_address(self._places.at(self._place ^ 3))),
        ]

    def _head(self, mapped_bytes: int) -> bytes:
        size_bytes = mapped_bytes + len(self._tail) + _FINGERPRINT_BYTES
        return BINDING_SUCCESS.to_bytes(2, "big") + size_bytes.to_bytes(2, "big")


def _changes(request: Message) -> int:
    """Return the flags of CHANGE-REQUEST: old clients send it with none, which changes nothing.

    Raises:
        WireError: malformed.
    """
    value = request.value(Attribute.CHANGE_REQUEST)
    if value is None:
        return 0
    if len(value) != 4:
        raise WireError("a malformed request to change")
    return value[3] & (CHANGE_ADDRESS | CHANGE_PORT)


def _response_port(request: Message) -> int | None:
    """Return the port that the answer is to be sent to, if another than the request's own.

    Raises:
        WireError: malformed, or beside padding, which RFC 5780 section 7.6 forbids: many small
            requests in another's name would make for large answers to it.
    """
    value = request.value(Attribute.RESPONSE_PORT)
    if value is None:
        return None
    port = int.from_bytes(value[:2], "big")
    if len(value) not in (2, 4) or not port or request.value(Attribute.PADDING) is not None:
        raise WireError("a malformed port to answer to")
    return port


def _padding(request: Message) -> list[tuple[Attribute, bytes]]:
    """Return as much padding as the request had, so that no answer grows by it."""
    value = request.value(Attribute.PADDING)
    return [] if value is None else [(Attribute.PADDING, bytes(min(len(value), MAX_PADDING_BYTES)))]


def _refusal(request: Message, unknown: list[int]) -> bytes:
    attributes = [
        (Attribute.ERROR_CODE, encode_error(420, "Unknown Attribute")),
        (
            Attribute.UNKNOWN_ATTRIBUTES,
            encode_unknown(unknown, is_classic=request.is_classic),
        ),
    ]
    if not request.is_classic:
        attributes.append((Attribute.SOFTWARE, SOFTWARE))
    return encode(
        Message(
            kind=BINDING_ERROR,
            transaction=request.transaction,
            attributes=tuple(attributes),
            has_fingerprint=not request.is_classic,
        )
    )
