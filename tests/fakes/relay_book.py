"""Two endpoints and a relay's book, without a socket: what tests of the relay are played with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from services.base.crypto.signatures import SigningKey
from services.edge.relay.messages import Allocate, Bound, ToSession, Verb
from services.edge.relay.model import Granted, Limits, Tell
from services.edge.relay.proofs import Proofs
from services.edge.relay.sessions import Book
from services.edge.relay.tickets import Ticket, parse_ticket, sign_ticket

SERVER = SigningKey(bytes(range(32)))
MESH = hashlib.sha256(b"mesh").digest()
RELAY_ID = bytes([7]) * 16
BOX_KEY = bytes([8]) * 32
HOST = "198.18.0.1"
CONTROL_PORT = 9103
FIRST_PORT = 9104
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def ticket_for(a: bytes, b: bytes, **changed) -> Ticket:
    values = {
        "relay_id": RELAY_ID,
        "box_key": BOX_KEY,
        "nonce": hashlib.sha256(a + b).digest()[:16],
        "keys": (a, b),
        "now_ms": NOW_MS,
        "lifetime_ms": HOUR_MS,
        "rate_kbits": 20_000,
        "customer": bytes([9]) * 16,
    }
    return parse_ticket(sign_ticket(SERVER, MESH, **(values | changed)))


def no_address_refused(host: str, port: int) -> None:
    return None


def book_of(*, why_refused=no_address_refused, **limits) -> Book:
    return Book(
        proofs=Proofs(bytes(32)),
        first_port=FIRST_PORT,
        why_refused=why_refused,
        limits=Limits(**limits),
    )


@dataclass
class Played:
    """A book, its clock, and the parties' counters."""

    book: Book
    now_s: float = 1000.0
    counter: int = 0
    effects: list = field(default_factory=list)

    def allocate(self, ticket, key, address, *, counter=None, host=HOST):
        self.counter += 1
        self.effects = []
        return self.book.allocate(
            ticket,
            Allocate(key=key, counter=counter or self.counter, ticket=b""),
            self.effects,
            host=host,
            address=address,
            now_ms=NOW_MS + int((self.now_s - 1000) * 1000),
            now_s=self.now_s,
        )

    def say(self, granted: Granted, address, verb=Verb.BIND, *, token=None, counter=None):
        self.counter += 1
        message = ToSession(
            verb=verb,
            counter=counter or self.counter,
            token=granted.token if token is None else token,
        )
        return self.book.hear(
            granted.direction, message, place=granted.place, address=address, now_s=self.now_s
        )

    def bind(self, ticket, key, address) -> Granted:
        granted = self.allocate(ticket, key, address)
        assert isinstance(granted, Granted), granted
        effects = self.say(granted, address)
        (answer,) = [one.answer for one in effects if isinstance(one, Tell)][-1:]
        assert isinstance(answer, Bound)
        return granted
