"""The book of a relay's sessions: who may talk to whom, from where, and until when. Pure.

One pair of endpoints has one session at most, however many tickets they bring: a newer ticket
prolongs it. It gets the lowest data port that the other sessions of both leave free, so where a
datagram comes from and the port that it comes to name one direction of one session.

Numbers that change with the traffic stand in columns by direction or by session: 10,000 sessions
are to cost less than a KiB each.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from services.edge.relay.clients import Clients
from services.edge.relay.columns import Columns
from services.edge.relay.messages import Bound, Code, Error, State, ToSession, Verb
from services.edge.relay.model import (
    Account,
    Granted,
    Limits,
    Link,
    Party,
    Session,
    Tell,
    Unlink,
)
from services.edge.relay.places import Places
from services.edge.relay.spent import Spent
from services.edge.relay.tickets import CLOCK_SKEW_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.edge.relay.messages import Allocate, Answer
    from services.edge.relay.model import Address, Effect, Place
    from services.edge.relay.proofs import Proofs
    from services.edge.relay.tickets import Ticket

_MAX_COMMON: Final = 4096


class Book:
    """All sessions; every method takes the time and returns what is to be done."""

    def __init__(
        self,
        *,
        proofs: Proofs,
        first_port: int,
        why_refused: Callable[[str, int], str | None],
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._proofs = proofs
        self._why_refused = why_refused
        self._places = Places(first_port)
        self._sessions: list[Session | None] = []
        self._free: deque[int] = deque()
        self._clients = Clients()
        self._common: dict[bytes, bytes] = {}
        self._spent = Spent(self.limits.spent_tickets)
        self._columns = Columns()
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._sessions) - len(self._free)

    def numbers(self) -> Iterator[int]:
        """Give the numbers of the sessions that there are."""
        return (number for number, one in enumerate(self._sessions) if one is not None)

    def session(self, number: int) -> Session | None:
        """Return a session."""
        return self._sessions[number] if number < len(self._sessions) else None

    def party(self, direction: int) -> Party | None:
        """Return who sends in a direction."""
        session = self.session(direction >> 1)
        if session is None:
            return None
        return session.b if direction & 1 else session.a

    def bar_port(self, port: int) -> None:
        """Give this data port to nobody any more: another program has it."""
        self._places.bar(port)

    def rate_kbits(self, number: int) -> int:
        """Return how much each side may send by the newest ticket."""
        return self._columns.rate_kbits[number]

    def nonce(self, number: int) -> bytes:
        """Return which ticket of a session is the newest."""
        return self._columns.nonce(number)

    def carried_bytes(self, direction: int) -> int:
        """Return how much a direction has carried."""
        return self._columns.carried_bytes[direction]

    def started_ms(self, number: int) -> int:
        """Return when a session began, in milliseconds of UTC."""
        return self._columns.started_ms[number]

    def session_key(self, direction: int) -> bytes | None:
        """Return the key of what a party says to its session; None where there is none."""
        party = self.party(direction)
        if party is None:
            return None
        generation = self._columns.generations[direction >> 1]
        return self._proofs.session_key(direction, generation, party.key)

    def allocate(
        self,
        ticket: Ticket,
        message: Allocate,
        effects: list[Effect],
        *,
        host: str,
        address: Address,
        now_ms: int,
        now_s: float,
    ) -> Granted | Code | None:
        """Give a party its side of the session that a ticket, already checked, is for.

        Args:
            ticket: for this relay and this time.
            message: from one who has proved to hold its key; a counter that is not above the last
                one makes it a replay.
            effects: what is to be done besides is added here.
            host: the address of the relay that was asked.
            address: where the question came from.
            now_ms: the time.
            now_s: the time that never goes back.

        Returns:
            The session, why there is none, or None where nothing is to be answered.

        Raises:
            BadTicketError: the ticket is for others.
        """
        key, other = message.key, ticket.other_than(message.key)
        party = self._party_of(key, other)
        floor = self._spent.floor(ticket.nonce, is_b=key > other)
        if message.counter <= max(floor, self._columns.counters[party.direction] if party else 0):
            return None
        if self._why_refused(address[0], address[1]) is not None:
            return Code.ADDRESS
        if party is None:
            if self._is_full(ticket):
                return Code.FULL
            party = self._make(ticket, key, now_ms, now_s)
        self._columns.counters[party.direction] = message.counter
        self._columns.heard_s[party.direction] = now_s
        self._prolong(ticket, party.direction >> 1)
        return self._grant(party, host, address, effects, now_ms)

    def hear(
        self, direction: int, message: ToSession, *, place: Place, address: Address, now_s: float
    ) -> list[Effect]:
        """Take up what a party, proved by its session key, says from an address."""
        session, party = self.session(direction >> 1), self.party(direction)
        if session is None or party is None or party.place is not place:
            return []
        if message.counter <= self._columns.counters[direction]:
            return []
        self._columns.counters[direction] = message.counter
        if message.verb is Verb.TEARDOWN:
            return self.end(direction >> 1, Code.ENDED, but=direction)
        if message.verb is Verb.USAGE:
            return self._account(party, message.counter, address)
        generation = self._columns.generations[direction >> 1]
        token = self._proofs.token(direction, generation, address)
        if not self._proofs.is_token(message.token, direction, generation, address):
            answer = Bound(counter=message.counter, state=State.ELSEWHERE, token=token)
            return [self._tell(party, address, answer)]
        self._columns.heard_s[direction] = now_s
        effects: list[Effect] = []
        if party.address != address:
            refusal = self._move(party, address, effects, now_s)
            if refusal is not None:
                no = Error(counter=message.counter, code=refusal)
                return [*effects, self._tell(party, address, no)]
        state = State.TOGETHER if session.is_linked else State.ALONE
        answer = Bound(counter=message.counter, state=state, token=token)
        return [*effects, self._tell(party, address, answer)]

    def carried(self, direction: int, more_bytes: int, now_s: float) -> None:
        """Note that a direction has carried more: a sign of life."""
        if more_bytes > 0 and self.session(direction >> 1) is not None:
            self._columns.heard_s[direction] = max(now_s, self._columns.heard_s[direction])
            self._columns.carried_bytes[direction] += more_bytes
            self.total_bytes += more_bytes

    def sweep(self, *, now_ms: int, now_s: float) -> list[Effect]:
        """End what is over, or was given up by one side."""
        effects: list[Effect] = []
        silent_s = now_s - self.limits.idle_s
        for number in self.numbers():
            if now_ms >= self._columns.expires_ms[number] + CLOCK_SKEW_MS:
                effects += self.end(number, Code.EXPIRED)
            elif min(self._columns.heard_s[2 * number : 2 * number + 2]) < silent_s:
                effects += self.end(number, Code.ENDED)
        return effects

    def clients(self) -> list[bytes]:
        """Return the keys of all endpoints that have a session."""
        return self._clients.keys()

    def revoke(self, key: bytes) -> list[Effect]:
        """End all sessions of an endpoint."""
        numbers = [party.direction >> 1 for party in self._clients.of(key)]
        return [effect for number in numbers for effect in self.end(number, Code.REVOKED)]

    def end_those_of(self, is_gone: Callable[[bytes], bool]) -> list[Effect]:
        """End the sessions whose newest ticket is of a server that is gone."""
        verdicts: dict[bytes, bool] = {}
        ended = []
        for number in self.numbers():
            session = self._sessions[number]
            if session is not None and session.server_key not in verdicts:
                verdicts[session.server_key] = is_gone(session.server_key)
            if session is not None and verdicts[session.server_key]:
                ended.append(number)
        return [effect for number in ended for effect in self.end(number, Code.REVOKED)]

    def end(self, number: int, code: Code, *, but: int | None = None) -> list[Effect]:
        """End a session and tell both parties, or both but one."""
        session = self._sessions[number]
        if session is None:
            return []
        effects: list[Effect] = []
        told = [
            self._tell(
                party,
                party.address,
                Error(counter=self._columns.counters[party.direction], code=code),
            )
            for party in (session.a, session.b)
            if party.address is not None and party.direction != but
        ]
        for party in (session.a, session.b):
            self._unbind(party, effects)
            self._clients.remove(party)
        self._spend(session, self._columns.nonce(number))
        self._sessions[number] = None
        self._free.append(number)
        return [*effects, *told]

    def sides(self, number: int) -> Link | None:
        """Return what the data path is to carry for a session; None where a side is missing."""
        session = self._sessions[number]
        if session is None or not session.is_linked:
            return None
        return self._link(session)

    def _account(self, party: Party, counter: int, address: Address) -> list[Effect]:
        if party.address != address:
            return []
        return [Account(direction=party.direction, counter=counter)]

    def _grant(
        self, party: Party, host: str, address: Address, effects: list[Effect], now_ms: int
    ) -> Granted | Code:
        number, direction = party.direction >> 1, party.direction
        other = self.party(direction ^ 1)
        if other is not None and not self._places.is_at(party.place, host):
            self._unbind(party, effects)
            near = (*self._clients.of(party.key), *self._clients.of(other.key))
            party.place = self._places.beside(other.place, host, near)
            other.place = other.place or party.place
        if party.place is None:
            return Code.FULL
        generation = self._columns.generations[number]
        return Granted(
            direction=direction,
            place=party.place,
            left_ms=max(self._columns.expires_ms[number] - now_ms, 0),
            session_key=self._proofs.session_key(direction, generation, party.key),
            token=self._proofs.token(direction, generation, address),
        )

    def _move(
        self, party: Party, address: Address, effects: list[Effect], now_s: float
    ) -> Code | None:
        """Bind a party to where it is now; return why not."""
        session, place = self._sessions[party.direction >> 1], party.place
        if session is None or place is None:
            return Code.ENDED
        other = session.a if party.direction & 1 else session.b
        if self._why_refused(address[0], address[1]) is not None or address == other.address:
            return Code.ADDRESS
        holder = self.party(place.bound.get(address, party.direction))
        if holder is not None and holder is not party:
            if self._columns.heard_s[holder.direction] > now_s - self.limits.stolen_after_s:
                return Code.ADDRESS
            self._unbind(holder, effects)
        was_bound = party.address is not None
        self._unbind(party, effects)
        party.address = address
        place.bound[address] = party.direction
        if other.address is not None:
            effects.append(self._link(session))
            if not was_bound:
                effects.append(self._tell_bound(other, other.address))
        return None

    def _unbind(self, party: Party, effects: list[Effect]) -> None:
        session = self._sessions[party.direction >> 1]
        if session is not None and session.is_linked:
            effects.append(self._unlink(session))
        if party.place is not None and party.address is not None:
            party.place.bound.pop(party.address, None)
        party.address = None

    def _party_of(self, key: bytes, other: bytes) -> Party | None:
        for party in self._clients.of(key):
            peer = self.party(party.direction ^ 1)
            if peer is not None and peer.key == other:
                return party
        return None

    def _is_full(self, ticket: Ticket) -> bool:
        if len(self) >= self.limits.sessions:
            return True
        most = max(len(self._clients.of(key)) for key in (ticket.key_a, ticket.key_b))
        return most >= self.limits.sessions_per_client

    def _make(self, ticket: Ticket, key: bytes, now_ms: int, now_s: float) -> Party:
        number = self._free.popleft() if self._free else self._grow()
        session = Session(
            a=Party(direction=2 * number, key=ticket.key_a),
            b=Party(direction=2 * number + 1, key=ticket.key_b),
            customer=self._shared(ticket.customer),
            server_key=self._shared(ticket.server_key),
        )
        self._sessions[number] = session
        self._columns.begin(number, now_ms, now_s)
        self._columns.set_nonce(number, ticket.nonce)
        self._clients.add(session.a)
        self._clients.add(session.b)
        return session.a if key == ticket.key_a else session.b

    def _grow(self) -> int:
        self._sessions.append(None)
        self._columns.grow()
        return len(self._sessions) - 1

    def _prolong(self, ticket: Ticket, number: int) -> None:
        session = self._sessions[number]
        if session is None:
            return
        is_other = ticket.nonce != self._columns.nonce(number)
        if ticket.expires_ms > self._columns.expires_ms[number]:
            if is_other:
                self._spend(session, self._columns.nonce(number))
            self._columns.expires_ms[number] = ticket.expires_ms
            self._columns.rate_kbits[number] = ticket.rate_kbits
            self._columns.set_nonce(number, ticket.nonce)
            session.customer = self._shared(ticket.customer)
            session.server_key = self._shared(ticket.server_key)
        elif is_other:
            self._spend(session, ticket.nonce)

    def _shared(self, value: bytes) -> bytes:
        """Return the one copy of what many sessions have in common."""
        if len(self._common) >= _MAX_COMMON:
            self._common.clear()
        return self._common.setdefault(value, value)

    def _spend(self, session: Session, nonce: bytes) -> None:
        a, b = session.a.direction, session.b.direction
        self._spent.note(nonce, self._columns.counters[a], self._columns.counters[b])

    def _link(self, session: Session) -> Link:
        number = session.a.direction >> 1
        a, b = session.a.side, session.b.side
        return Link(number=number, a=a, b=b, rate_kbits=self._columns.rate_kbits[number])

    def _unlink(self, session: Session) -> Unlink:
        number = session.a.direction >> 1
        return Unlink(number=number, a=session.a.side, b=session.b.side)

    def _tell_bound(self, party: Party, address: Address) -> Tell:
        direction = party.direction
        token = self._proofs.token(direction, self._columns.generations[direction >> 1], address)
        counter = self._columns.counters[direction]
        return self._tell(party, address, Bound(counter=counter, state=State.TOGETHER, token=token))

    def _tell(self, party: Party, address: Address, answer: Answer) -> Tell:
        generation = self._columns.generations[party.direction >> 1]
        return Tell(
            place=party.data_place,
            address=address,
            session_key=self._proofs.session_key(party.direction, generation, party.key),
            answer=answer,
        )
