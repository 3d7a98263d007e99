"""An endpoint's side, played against a real desk and book, without a network."""

from __future__ import annotations

import secrets

import pytest

from services.base.crypto.agreement import generate_x25519, x25519_public
from services.base.crypto.signatures import generate_signing_key
from services.edge.relay import messages
from services.edge.relay.client import Offer, Phase, RelayClient
from services.edge.relay.desk import Came, Desk, Question
from services.edge.relay.keys import box_private_key
from services.edge.relay.messages import Bound, Error
from services.edge.relay.model import Limits, Link, Tell, Unlink
from services.edge.relay.proofs import Proofs
from services.edge.relay.sessions import Book
from services.edge.relay.tickets import sign_ticket
from tests.unit.edge_relay.relay_kit import (
    CONTROL_PORT,
    FIRST_PORT,
    HOST,
    HOUR_MS,
    MESH,
    NOW_MS,
    RELAY_ID,
    SERVER,
    no_address_refused,
)

A, B = generate_x25519(), generate_x25519()
AT_A, AT_B = ("198.18.1.1", 5000), ("198.18.2.2", 6000)


class Relay:
    """A relay with a wire that can be cut; what it links is kept in ``links``."""

    def __init__(self, **limits) -> None:
        self.box_private = box_private_key(bytes(32))
        self.box_key = x25519_public(self.box_private)
        self.book = Book(
            proofs=Proofs(secrets.token_bytes(32)),
            first_port=FIRST_PORT,
            why_refused=no_address_refused,
            limits=Limits(**limits),
        )
        self.welcome = {A[1], B[1]}
        self.desk = Desk(
            book=self.book,
            relay_id=RELAY_ID,
            box_private=self.box_private,
            mesh_id=MESH,
            is_server=lambda key: key == SERVER.public_key,
            is_welcome=lambda key: key in self.welcome,
        )
        self.now_s = 1000.0
        self.links: list = []
        self.is_up = True
        self.clients: dict = {}

    @property
    def now_ms(self) -> int:
        return NOW_MS + int((self.now_s - 1000) * 1000)

    def ticket(self, keys=(A[1], B[1]), signer=SERVER, mesh=MESH, **changed) -> bytes:
        values = {
            "relay_id": RELAY_ID,
            "box_key": self.box_key,
            "nonce": secrets.token_bytes(16),
            "keys": keys,
            "now_ms": self.now_ms,
            "lifetime_ms": HOUR_MS,
            "rate_kbits": 20_000,
            "customer": bytes(16),
        }
        return sign_ticket(signer, mesh, **(values | changed))

    def client(self, keys, address, ticket, hosts=(HOST,)) -> RelayClient:
        client = RelayClient(
            offer=Offer(
                relay_id=RELAY_ID,
                hosts=hosts,
                port=CONTROL_PORT,
                box_key=self.box_key,
                ticket=ticket,
            ),
            private_key=keys[0],
            counter=self.now_ms,
            random_bytes=secrets.token_bytes,
        )
        self.clients[address] = client
        return client

    def carry(self, datagrams, address) -> None:
        """Bring what a client sends from an address, and all that follows."""
        for data, to in datagrams:
            if not self.is_up or to[0] != HOST:
                continue
            if to[1] == CONTROL_PORT:
                self._to_desk(data, address)
            else:
                self._to_session(data, to, address)

    def tick(self, seconds: float) -> None:
        until = self.now_s + seconds
        while self.now_s < until:
            self.now_s += 0.2
            for address, client in list(self.clients.items()):
                self.carry(client.tick(self.now_s), address)
            self.run(self.book.sweep(now_ms=self.now_ms, now_s=self.now_s))

    def run(self, effects) -> None:
        for one in effects:
            if isinstance(one, Link | Unlink):
                self.links.append(one)
            elif isinstance(one, Tell):
                seal = messages.seal_bound if isinstance(one.answer, Bound) else messages.seal_error
                assert isinstance(one.answer, Bound | Error)
                data = seal(one.session_key, one.answer, nonce=secrets.token_bytes(24))
                self._deliver(data, (HOST, one.place.port), one.address)

    def _to_desk(self, data, address) -> None:
        reply = self.desk.take(
            Question(
                data=data,
                address=address,
                host=HOST,
                now_ms=self.now_ms,
                now_s=self.now_s,
                nonce=secrets.token_bytes(24),
            )
        )
        self.run(reply.effects)
        assert len(reply.data) <= len(data)
        if reply.data:
            self._deliver(reply.data, (HOST, CONTROL_PORT), address)

    def _to_session(self, data, to, address) -> None:
        direction = int.from_bytes(messages.index_of(data), "big")
        key = self.book.session_key(direction)
        if key is None:
            return
        message = messages.open_to_session(key, data)
        place = self.book._places.lowest(HOST, range(FIRST_PORT, to[1]))
        self.run(self.book.hear(direction, message, place=place, address=address, now_s=self.now_s))

    def _deliver(self, data, source, address) -> None:
        if self.is_up and address in self.clients:
            answers = self.clients[address].receive(data, source, self.now_s)
            self.carry(answers, address)


@pytest.fixture
def relay() -> Relay:
    return Relay()


def meet(relay: Relay, ticket: bytes | None = None):
    ticket = ticket or relay.ticket()
    a, b = relay.client(A, AT_A, ticket), relay.client(B, AT_B, ticket)
    relay.carry(a.begin(relay.now_s), AT_A)
    relay.carry(b.begin(relay.now_s), AT_B)
    return a, b


def test_two_meet_in_two_round_trips_each(relay):
    a, b = meet(relay)
    assert (a.phase, b.phase) == (Phase.TOGETHER, Phase.TOGETHER)
    assert a.data_address == b.data_address == (HOST, FIRST_PORT)
    assert [type(one) for one in relay.links] == [Link]
    assert a.ends_s == pytest.approx(relay.now_s + 3600)


def test_who_is_alone_is_told_when_the_other_comes(relay):
    ticket = relay.ticket()
    a = relay.client(A, AT_A, ticket)
    relay.carry(a.begin(relay.now_s), AT_A)
    assert a.phase is Phase.ALONE
    relay.tick(30)
    assert a.phase is Phase.ALONE
    b = relay.client(B, AT_B, ticket)
    relay.carry(b.begin(relay.now_s), AT_B)
    assert (a.phase, b.phase) == (Phase.TOGETHER, Phase.TOGETHER)


def test_rly_09_a_dead_relay_is_noticed_within_ten_seconds(relay):
    a, b = meet(relay)
    relay.tick(61)
    assert a.phase is Phase.TOGETHER
    relay.is_up = False
    relay.tick(9.6)
    assert (a.phase, a.why) == (Phase.LOST, "silent")
    assert (b.phase, b.why) == (Phase.LOST, "silent")


def test_a_lost_answer_is_no_dead_relay(relay):
    a, _ = meet(relay)
    for _ in range(5):
        relay.is_up = False
        relay.tick(2)
        relay.is_up = True
        relay.tick(5)
    assert a.phase is Phase.TOGETHER


def test_a_relay_that_never_answers_is_given_up(relay):
    relay.is_up = False
    a, _ = meet(relay)
    relay.tick(5)
    assert (a.phase, a.why) == (Phase.LOST, "silent")


def test_the_second_address_of_a_relay_is_tried(relay):
    ticket = relay.ticket()
    a = relay.client(A, AT_A, ticket, hosts=("2001:db8::1", HOST))
    relay.carry(a.begin(relay.now_s), AT_A)
    relay.tick(5)
    assert a.phase is Phase.ALONE


def test_a_moved_client_is_bound_anew(relay):
    a, _ = meet(relay)
    for moved in (("198.18.1.1", 5555), ("203.0.113.7", 4444)):
        del relay.clients[next(at for at, one in relay.clients.items() if one is a)]
        relay.clients[moved] = a
        relay.tick(6)
        assert a.phase is Phase.TOGETHER
        assert relay.links[-1].a.address == moved or relay.links[-1].b.address == moved


def test_the_end_of_one_is_told_to_the_other(relay):
    a, b = meet(relay)
    relay.carry(a.end(), AT_A)
    assert (b.phase, b.why) == (Phase.LOST, "ended")
    assert len(relay.book) == 0


def test_rly_04_a_revoked_client_is_told_at_once(relay):
    a, b = meet(relay)
    relay.welcome.discard(A[1])
    relay.run(relay.book.revoke(A[1]))
    assert (a.why, b.why) == ("revoked", "revoked")
    again = relay.client(A, AT_A, relay.ticket())
    relay.carry(again.begin(relay.now_s), AT_A)
    assert again.phase is Phase.ALLOCATING
    assert relay.desk.counts[Came.UNWELCOME] == 1


def test_a_newer_ticket_prolongs(relay):
    a, b = meet(relay)
    relay.tick(3000)
    newer = relay.ticket()
    relay.carry(a.prolong(newer, relay.now_s), AT_A)
    relay.carry(b.prolong(newer, relay.now_s), AT_B)
    relay.tick(1200)
    assert (a.phase, b.phase) == (Phase.TOGETHER, Phase.TOGETHER)
    assert [type(one) for one in relay.links] == [Link]
    relay.tick(2500)
    assert (a.why, b.why) == ("expired", "expired")


def test_a_bad_newer_ticket_costs_nothing(relay):
    a, _ = meet(relay)
    relay.carry(a.prolong(relay.ticket(mesh=bytes(32)), relay.now_s), AT_A)
    relay.tick(60)
    assert a.phase is Phase.TOGETHER


def test_rly_05_a_full_relay_says_so():
    relay = Relay(sessions_per_client=0)
    a, _ = meet(relay)
    assert (a.phase, a.why) == (Phase.LOST, "full")


@pytest.mark.parametrize(
    "changed",
    [
        {"signer": generate_signing_key()},
        {"mesh": bytes(32)},
        {"relay_id": bytes(16)},
        {"box_key": bytes([5]) * 32},
        {"now_ms": NOW_MS - HOUR_MS - 30_001},
        {"now_ms": NOW_MS + 60_000},
        {"keys": (B[1], bytes([9]) * 32)},
    ],
    ids=["forged", "other mesh", "other relay", "other box", "expired", "early", "for others"],
)
def test_rly_02_what_is_no_ticket_for_here_and_now_is_not_answered(relay, changed):
    a, _ = meet(relay, relay.ticket(**changed))
    assert a.phase is Phase.ALLOCATING
    assert relay.desk.counts[Came.BAD_TICKET] >= 1
    relay.tick(5)
    assert (a.phase, a.why) == (Phase.LOST, "silent")


def test_rly_03_a_stolen_ticket_opens_nothing_for_another_key(relay):
    thief = generate_x25519()
    relay.welcome.add(thief[1])
    stolen = relay.client(thief, AT_A, relay.ticket())
    relay.carry(stolen.begin(relay.now_s), AT_A)
    assert stolen.phase is Phase.ALLOCATING
    assert len(relay.book) == 0


def test_rly_03_a_recorded_exchange_opens_nothing_from_elsewhere(relay):
    recorded = []
    carry = relay.carry
    relay.carry = lambda datagrams, address: (recorded.extend(datagrams), carry(datagrams, address))
    a, _ = meet(relay)
    relay.carry = carry
    links = list(relay.links)
    thief = ("203.0.113.66", 666)
    relay.clients[thief] = a  # would hear whatever is answered
    heard = []
    a.receive = lambda *args: heard.append(args) or []
    relay.carry(recorded, thief)
    assert heard == []
    assert relay.links == links


def test_foreign_bytes_are_not_answered(relay):
    for data in (b"", b"seiR", b"seiR\x01" + bytes(400), b"\x01\0\0\0" + bytes(144)):
        relay._to_desk(data, AT_A)
    assert relay.desk.counts[Came.MALFORMED] == 4
