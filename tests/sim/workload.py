"""People and machines that ask random servers for things, some of them against each other.

What a server answered for is noted: it may never be missing again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from services.authority.enroll.view import redeem_input
from services.kernel.errors import SeipdError
from services.kernel.ids import b64u_encode, node_id_of
from tests.sim.founding import key_of, signed_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.writer import Receipt
    from services.kernel.records import Record
    from tests.sim.mesh import Mesh
    from tests.sim.server import SimServer

PEOPLE = 5
ENDPOINTS = 60
CUSTOMERS = 6
FIRST_OFFSET = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An invitation in somebody's hands."""

    invite_id: str
    seed: SigningKey
    issuer: SimServer


@dataclass(slots=True)
class Told:
    """What clients were told."""

    receipts: list[Receipt] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


class Workload:
    """Wishes at random moments until it is stopped."""

    def __init__(self, mesh: Mesh, *, wishes_s: float, askable: int | None = None) -> None:
        self._mesh = mesh
        self._rng = mesh.random("workload")
        self._wishes_s = wishes_s
        self._askable = askable
        self._tokens: list[Token] = []
        self._sent: list[list[Record]] = []
        self._given: dict[str, set[str]] = {}
        self._stopped = False
        self.told = Told()
        self._wishes = (
            (8, self._invite),
            (12, self._redeem),
            (2, self._release),
            (2, self._leave),
            (5, self._create),
            (2, self._move),
            (2, self._rename),
            (2, self._remove),
            (3, self._grant),
            (1, self._revoke),
            (2, self._block),
            (1, self._steal),
            (2, self._again),
        )

    def begin(self) -> None:
        self._mesh.queue.later(0.0, self._next)

    def stop(self) -> None:
        self._stopped = True

    def _next(self) -> None:
        if self._stopped:
            return
        candidates = [
            one
            for one in self._mesh.askable()
            if self._askable is None or one.number < self._askable
        ]
        if candidates:
            weights = [weight for weight, _ in self._wishes]
            wishes = [wish for _, wish in self._wishes]
            (wish,) = self._rng.choices(wishes, weights)
            wish(self._rng.choice(candidates))
        self._mesh.queue.later(self._rng.expovariate(self._wishes_s), self._next)

    def ask(self, server: SimServer, records: Sequence[Record], token: Token | None = None) -> None:
        """Hand records to a server and note what it says."""

        def answer(outcome: list[Receipt] | SeipdError) -> None:
            if isinstance(outcome, SeipdError):
                self.told.refused[outcome.code] += 1
                return
            self.told.receipts.extend(outcome)
            if token is not None:
                self._tokens.append(token)

        self._sent.append(list(records))
        server.submit(records, answer)

    def _signed(self, key: SigningKey, kind: str, body: dict[str, Any]) -> Record:
        record_id = f"{self._rng.getrandbits(128):032x}"
        return signed_record(self._mesh.founding.mesh_id, key, kind, body, record_id)

    def _person(self) -> SigningKey:
        return key_of(f"person {self._rng.randrange(PEOPLE)}")

    def _endpoint(self) -> SigningKey:
        return key_of(f"endpoint {self._rng.randrange(ENDPOINTS)}")

    def _customer(self) -> str:
        """Return a customer: often the one that is surely there."""
        number = max(0, self._rng.randrange(-CUSTOMERS, CUSTOMERS))
        return f"00000000-0000-4000-8000-{number + 1:012d}"

    def _actor(self, server: SimServer) -> SigningKey:
        """Return who wants it: the root, a server, or somebody who may not be allowed to."""
        first, *_, newest = self._mesh.roots * 2
        return self._rng.choice((first, newest, server.key, self._person()))

    def _invite(self, server: SimServer) -> None:
        rng = self._rng
        invite_id = f"{rng.getrandbits(128):032x}"
        seed = key_of(f"invite {invite_id}")
        body = {
            "invite": invite_id,
            "key": b64u_encode(seed.public_key),
            "role": "endpoint",
            "customer": self._customer(),
            "region": None,
            "name": None,
            "expires_ms": server.clock.now_ms() + rng.choice((3000, 60_000, 3_600_000)),
            "uses": rng.randint(1, 3),
        }
        token = Token(invite_id=invite_id, seed=seed, issuer=server)
        self.ask(server, [self._signed(server.key, "auth.invite", body)], token)

    def _redeem(self, server: SimServer) -> None:
        if not self._tokens:
            return
        token = self._rng.choice(self._tokens)
        if token.issuer.is_up and self._rng.random() < 0.9:
            server = token.issuer
        key = self._endpoint()
        signed = redeem_input(self._mesh.founding.mesh_id, token.invite_id, key.public_key)
        body = {
            "invite": token.invite_id,
            "signature": b64u_encode(token.seed.sign(signed)),
            "role": "endpoint",
            "name": f"host-{self._rng.randrange(ENDPOINTS // 2)}",
            "wireguard_key": b64u_encode(hashlib.sha256(b"wg" + key.public_key).digest()),
        }
        redeem = self._signed(key, "auth.redeem", body)
        place = {"node": node_id_of(key.public_key), "address": self._address(server)}
        self.ask(server, [redeem, self._signed(server.key, "ipam.assign", place)])

    def _address(self, server: SimServer) -> str:
        """Return an address of the server's slice that it believes to be free."""
        network = IPv4Network(self._mesh.founding.slices[server.number])
        state = server.ledger.fold.state
        given = self._given.setdefault(server.name, set())
        for offset in range(FIRST_OFFSET, network.num_addresses - 1):
            address = str(network[offset])
            if state.get("ipam", address) is None and address not in given:
                # Forgotten again at random, so that a freed address is given anew.
                given.add(address)
                if self._rng.random() < 0.3:
                    given.clear()
                return address
        raise AssertionError("a slice is full")

    def _release(self, server: SimServer) -> None:
        key = self._endpoint()
        node = node_id_of(key.public_key)
        actor = key if self._rng.random() < 0.5 else self._actor(server)
        self.ask(server, [self._signed(actor, "ipam.release", {"node": node})])

    def _leave(self, server: SimServer) -> None:
        key = self._endpoint()
        node = node_id_of(key.public_key)
        self.ask(server, [self._signed(key, "tree.remove", {"node": node})])

    def _create(self, server: SimServer) -> None:
        body = {
            "node": self._customer(),
            "kind": "customer",
            "parent": self._rng.choice((self._mesh.founding.root_node, self._customer())),
            "name": f"customer-{self._rng.randrange(4)}",
        }
        self.ask(server, [self._signed(self._actor(server), "tree.create", body)])

    def _move(self, server: SimServer) -> None:
        body = {"node": self._customer(), "parent": self._customer()}
        self.ask(server, [self._signed(self._actor(server), "tree.move", body)])

    def _rename(self, server: SimServer) -> None:
        body = {"node": self._customer(), "name": f"customer-{self._rng.randrange(4)}"}
        self.ask(server, [self._signed(self._actor(server), "tree.rename", body)])

    def _remove(self, server: SimServer) -> None:
        number = self._rng.randrange(2, CUSTOMERS + 1)
        body = {"node": f"00000000-0000-4000-8000-{number:012d}"}
        self.ask(server, [self._signed(self._actor(server), "tree.remove", body)])

    def _grant(self, server: SimServer) -> None:
        body = {
            "node": self._rng.choice((self._customer(), self._mesh.founding.root_node)),
            "key": b64u_encode(self._person().public_key),
            "capability": self._rng.choice(("read", "operate", "admin")),
        }
        self.ask(server, [self._signed(self._actor(server), "tree.grant", body)])

    def _revoke(self, server: SimServer) -> None:
        body = {
            "node": self._rng.choice((self._customer(), self._mesh.founding.root_node)),
            "key": b64u_encode(self._person().public_key),
        }
        self.ask(server, [self._signed(self._actor(server), "tree.revoke", body)])

    def _block(self, server: SimServer) -> None:
        chunk = 4 * self._rng.randrange(64)
        block = f"10.128.{self._rng.randrange(8)}.{chunk}/30"
        body = {"block": block, "pool": "private", "customer": self._customer()}
        self.ask(server, [self._signed(self._actor(server), "ipam.block", body)])

    def _steal(self, server: SimServer) -> None:
        """Ask for an address out of another server's slice: never to be had."""
        other = self._rng.choice(self._mesh.all)
        network = IPv4Network(self._mesh.founding.slices[other.number])
        node = node_id_of(self._endpoint().public_key)
        body = {"node": node, "address": str(network[FIRST_OFFSET + self._rng.randrange(8)])}
        self.ask(server, [self._signed(server.key, "ipam.assign", body)])

    def _again(self, server: SimServer) -> None:
        """Repeat a wish elsewhere, as a client does that was not answered."""
        if self._sent:
            self.ask(server, self._rng.choice(self._sent))
