"""Where tickets are looked at: an ALLOCATE comes in, and an answer or nothing goes out. Pure.

Nothing is answered to who has not proved a WireGuard key that the ticket names, and nothing to a
ticket that is forged, expired, replayed, or for another relay or mesh.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from services.base.crypto.agreement import x25519_public
from services.base.crypto.signatures import BadSignatureError
from services.edge.relay import messages
from services.edge.relay.messages import Allocated, Code, Error
from services.edge.relay.model import Granted
from services.edge.relay.tickets import (
    BadTicketError,
    check_place_and_time,
    check_signature,
    parse_ticket,
)
from services.kernel.errors import InputError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.edge.relay.messages import Allocate
    from services.edge.relay.model import Address, Effect, Place
    from services.edge.relay.sessions import Book
    from services.edge.relay.tickets import Ticket


class Came(Enum):
    """What became of an ALLOCATE."""

    GRANTED = "granted"
    MALFORMED = "malformed"
    BAD_TICKET = "bad_ticket"
    UNWELCOME = "unwelcome"
    REPLAYED = "replayed"
    FULL = "full"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A datagram on the control port, and where and when it came."""

    data: bytes
    address: Address
    host: str
    """The relay's address that it came to."""
    now_ms: int
    now_s: float
    nonce: bytes
    """24 fresh random bytes for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to do about it."""

    data: bytes
    """The answer; empty for none."""
    place: Place | None = None
    """The data port that it promises."""
    effects: tuple[Effect, ...] = ()


_SILENCE = Reply(data=b"")
_NO = {Code.FULL: Came.FULL, Code.ADDRESS: Came.ADDRESS}


class Desk:
    """Checks tickets and asks the book."""

    def __init__(
        self,
        *,
        book: Book,
        relay_id: bytes,
        box_private: bytes,
        mesh_id: bytes,
        is_server: Callable[[bytes], bool],
        is_welcome: Callable[[bytes], bool],
    ) -> None:
        self._book = book
        self._relay_id = relay_id
        self._box_private = box_private
        self._mesh_id = mesh_id
        self._is_server = is_server
        self._is_welcome = is_welcome
        self.box_public = x25519_public(box_private)
        self.counts: Counter[Came] = Counter()

    def take(self, question: Question) -> Reply:
        """Answer an ALLOCATE; anything else, too, may come in."""
        try:
            key = self._agreed(question.data)
            message = messages.open_allocate(key, question.data)
            ticket = parse_ticket(message.ticket)
        except (WireError, InputError):
            return self._silent(Came.MALFORMED)
        try:
            self._check(ticket, message, question.now_ms)
        except (BadTicketError, BadSignatureError):
            return self._silent(Came.BAD_TICKET)
        if not (self._is_welcome(ticket.key_a) and self._is_welcome(ticket.key_b)):
            return self._silent(Came.UNWELCOME)
        return self._ask(ticket, message, key, question)

    def is_known(self, server_key: bytes) -> bool:
        """Say whether this server may sign tickets."""
        return self._is_server(server_key)

    def _agreed(self, data: bytes) -> bytes:
        sender = messages.sender_of(data)
        return messages.agreed_key(
            self._box_private, other=sender, endpoint=sender, relay=self.box_public
        )

    def _check(self, ticket: Ticket, message: Allocate, now_ms: int) -> None:
        """Check the cheap things first.

        Raises:
            BadTicketError: of others, another time, another relay, or by no server of the mesh.
            BadSignatureError: forged.
        """
        ticket.other_than(message.key)
        check_place_and_time(
            ticket, relay_id=self._relay_id, box_key=self.box_public, now_ms=now_ms
        )
        if not self._is_server(ticket.server_key):
            raise BadTicketError("no server of the mesh has signed the ticket")
        check_signature(ticket, message.ticket, self._mesh_id)

    def _ask(self, ticket: Ticket, message: Allocate, key: bytes, question: Question) -> Reply:
        effects: list[Effect] = []
        granted = self._book.allocate(
            ticket,
            message,
            effects,
            host=question.host,
            address=question.address,
            now_ms=question.now_ms,
            now_s=question.now_s,
        )
        if granted is None:
            return self._silent(Came.REPLAYED)
        if not isinstance(granted, Granted):
            self.counts[_NO[granted]] += 1
            no = Error(counter=message.counter, code=granted)
            data = messages.seal_error(key, no, nonce=question.nonce)
            return Reply(data=data, effects=tuple(effects))
        self.counts[Came.GRANTED] += 1
        answer = Allocated(
            counter=message.counter,
            index=granted.direction.to_bytes(messages.INDEX_BYTES, "big"),
            data_port=granted.place.port,
            token=granted.token,
            left_ms=min(granted.left_ms, 0xFFFFFFFF),
            session_key=granted.session_key,
        )
        data = messages.seal_allocated(key, answer, nonce=question.nonce)
        return Reply(data=data, place=granted.place, effects=tuple(effects))

    def _silent(self, came: Came) -> Reply:
        self.counts[came] += 1
        return _SILENCE
