"""A relay without a socket: a real desk and a real book, and a wire that can be cut."""

from __future__ import annotations

import secrets
from itertools import count

from services.base.crypto.agreement import x25519_public
from services.edge.relay import messages
from services.edge.relay.client import Offer, RelayClient
from services.edge.relay.desk import Desk, Question
from services.edge.relay.keys import box_private_key
from services.edge.relay.messages import Bound, Error
from services.edge.relay.model import Limits, Link, Tell, Unlink
from services.edge.relay.proofs import Proofs
from services.edge.relay.sessions import Book
from services.edge.relay.tickets import sign_ticket
from tests.fakes.relay_book import (
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


class Relay:
    """A relay with a wire that can be cut; what it links is kept in ``links``."""

    def __init__(self, *, host=HOST, relay_id=RELAY_ID, seed=bytes(32), **limits) -> None:
        self.host, self.relay_id = host, relay_id
        self.box_private = box_private_key(seed)
        self.box_key = x25519_public(self.box_private)
        self.book = Book(
            proofs=Proofs(secrets.token_bytes(32)),
            first_port=FIRST_PORT,
            why_refused=no_address_refused,
            limits=Limits(**limits),
        )
        self.unwelcome: set[bytes] = set()
        self.desk = Desk(
            book=self.book,
            relay_id=relay_id,
            box_private=self.box_private,
            mesh_id=MESH,
            is_server=lambda key: key == SERVER.public_key,
            is_welcome=lambda key: key not in self.unwelcome,
        )
        self.now_s = 1000.0
        self.links: list = []
        self.is_up = True
        self.clients: dict = {}

    @property
    def now_ms(self) -> int:
        return NOW_MS + int((self.now_s - 1000) * 1000)

    def ticket(self, keys, signer=SERVER, mesh=MESH, **changed) -> bytes:
        values = {
            "relay_id": self.relay_id,
            "box_key": self.box_key,
            "nonce": secrets.token_bytes(16),
            "keys": keys,
            "now_ms": self.now_ms,
            "lifetime_ms": HOUR_MS,
            "rate_kbits": 20_000,
            "customer": bytes(16),
        }
        return sign_ticket(signer, mesh, **(values | changed))

    def offer(self, ticket, hosts=None) -> Offer:
        return Offer(
            relay_id=self.relay_id,
            hosts=hosts or (self.host,),
            port=CONTROL_PORT,
            box_key=self.box_key,
            ticket=ticket,
        )

    def client(self, keys, address, ticket, hosts=None) -> RelayClient:
        client = RelayClient(
            offer=self.offer(ticket, hosts),
            private_key=keys[0],
            counters=count(self.now_ms),
            random_bytes=secrets.token_bytes,
        )
        self.clients[address] = client
        return client

    def carry(self, datagrams, address) -> None:
        """Bring what a client sends from an address, and all that follows."""
        for data, to in datagrams:
            if not self.is_up or to[0] != self.host:
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
                self._deliver(data, (self.host, one.place.port), one.address)

    def _to_desk(self, data, address) -> None:
        reply = self.desk.take(
            Question(
                data=data,
                address=address,
                host=self.host,
                now_ms=self.now_ms,
                now_s=self.now_s,
                nonce=secrets.token_bytes(24),
            )
        )
        self.run(reply.effects)
        assert len(reply.data) <= len(data)
        if reply.data:
            self._deliver(reply.data, (self.host, CONTROL_PORT), address)

    def _to_session(self, data, to, address) -> None:
        direction = int.from_bytes(messages.index_of(data), "big")
        key = self.book.session_key(direction)
        if key is None:
            return
        message = messages.open_to_session(key, data)
        place = self.book._places.lowest(self.host, range(FIRST_PORT, to[1]))
        self.run(self.book.hear(direction, message, place=place, address=address, now_s=self.now_s))

    def _deliver(self, data, source, address) -> None:
        if self.is_up and address in self.clients:
            answers = self.clients[address].receive(data, source, self.now_s)
            self.carry(answers, address)
