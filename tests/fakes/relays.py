"""A little mesh with relays: endpoints of several customers, servers that tell of theirs."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from services.authority.relays.introductions import introduced
from services.authority.relays.usage import Usage, signed_usage
from services.base.ledger.watching import Change
from services.edge.relay.tickets import Ticket, parse_ticket
from services.edge.relaying.offering import RelayOffering
from services.edge.relaying.reports import signed_report
from services.edge.relaying.service import NO_RELAY, OwnRelay, RelayingService
from services.kernel.ids import ServerId, b64u_encode, node_id_of, parse_wireguard_key, relay_id_of
from services.mesh.facts.envelope import Fact, sign_envelope
from services.mesh.facts.kinds import KINDS, RELAY
from services.mesh.facts.payloads import RelayPayload, encode_payload
from services.mesh.gossip.addresses import AddressFact
from tests.fakes.world import START_MS, World, key_of

if TYPE_CHECKING:
    from services.base.crypto.signatures import SigningKey


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.s = 1000.0

    def now_ms(self) -> int:
        return START_MS + int(self.s * 1000)

    def monotonic_s(self) -> float:
        return self.s


class WorldLedger:
    """The first server's view of a little mesh."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.server_id: ServerId = world.servers[0].id
        self.mesh_id = world.mesh_id
        self.state = world.folded().state
        self.subscribers: list[Any] = []

    @property
    def charter(self):
        return self._world.charter

    def subscribe(self, views, subscriber) -> None:
        self.subscribers.append((frozenset(views), subscriber))

    def refold(self) -> None:
        self.state = self._world.folded().state


class Told:
    """What gossip holds."""

    def __init__(self) -> None:
        self.by_kind: dict[int, dict[str, Fact]] = {}
        self.places: dict[str, AddressFact] = {}
        self.published: list[tuple[int, bytes]] = []
        self.listeners: list[Any] = []

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        self.published.append((kind, payload))

    def facts(self, kind: int):
        return self.by_kind.get(kind, {})

    def addresses(self):
        return self.places

    def subscribe_facts(self, callback) -> None:
        self.listeners.append(callback)


def relay_directory(ledger, told: Told, clock, own: OwnRelay = NO_RELAY) -> RelayingService:
    """Return a directory that asks no relay and holds no server for dead."""
    return RelayingService(
        ledger=ledger, gossip=told, own=lambda: own, dead=set, ask=None, clock=clock
    )


def relay_offering(ledger, directory: RelayingService, identity, clock) -> RelayOffering:
    """Return what offers relays of a directory."""
    return RelayOffering(
        ledger=ledger,
        directory=directory,
        signer=identity.signing_key,
        clock=clock,
        random_bytes=secrets.token_bytes,
    )


class RelayMesh:
    """Everything that the relay directory needs, and hands to move it."""

    def __init__(self, server_count: int = 2) -> None:
        self.world = World(server_count)
        self.clock = HandClock()
        self.gossip = Told()
        self.dead: set[str] = set()
        self.own = NO_RELAY
        self.ledger = WorldLedger(self.world)
        self.directory = RelayingService(
            ledger=self.ledger,
            gossip=self.gossip,
            own=lambda: self.own,
            dead=lambda: self.dead,
            ask=None,
            clock=self.clock,
        )
        self.offering = RelayOffering(
            ledger=self.ledger,
            directory=self.directory,
            signer=self.world.servers[0].key,
            clock=self.clock,
            random_bytes=self._random,
        )
        self._serial = 0
        self._random_serial = 0
        for number in range(server_count):
            self.tell_relay(number)

    def _random(self, count: int) -> bytes:
        self._random_serial += 1
        return self._random_serial.to_bytes(count, "big")

    def refold(self) -> None:
        self.ledger.refold()
        self.directory.look()

    def write(self, record) -> None:
        server = self.world.servers[0]
        server.hlc = max(one.hlc for one in self.world.servers)
        self.world.write(server, record)

    def customer(self, name: str, parent: str | None = None) -> str:
        self._serial += 1
        node = f"00000000-0000-4000-8000-{1000 + self._serial:012}"
        body = {
            "node": node,
            "kind": "customer",
            "parent": parent or self.world.root_node,
            "name": name,
        }
        self.write(self.world.signed(self.world.servers[0].key, "tree.create", body))
        return node

    def endpoint(self, name: str, customer: str | None = None) -> str:
        self._serial += 1
        world, server = self.world, self.world.servers[0]
        server.hlc = max(one.hlc for one in world.servers)
        changes = {"customer": customer} if customer else {}
        invite_id, seed = world.invite(server, name, **changes)
        self.write(world.redeem(name, invite_id, seed))
        self.write(world.assign(server, name, f"10.64.0.{20 + self._serial}"))
        self.ledger.refold()
        return node_id_of(key_of(f"endpoint {name}").public_key)

    def leave(self, node_id: str) -> None:
        self.write(self.world.signed(self.world.servers[0].key, "tree.remove", {"node": node_id}))
        self.refold()

    def tell_relay(self, number: int, *, port: int = 9103, voices=(), load: int = 0) -> str:
        server = self.world.servers[number]
        payload = RelayPayload(
            box=hashlib.sha256(b"box" + server.key.public_key).digest(),
            port=port,
            host6="",
            sessions_count=load,
            load_permille=load,
            voices=tuple(voices),
        )
        fact = sign_envelope(
            server.key,
            bytes.fromhex(self.world.mesh_id),
            kind=RELAY,
            payload=encode_payload(payload),
            counter=self.clock.now_ms(),
            now_ms=self.clock.now_ms(),
            lifetime_ms=KINDS[RELAY].max_lifetime_ms,
        )
        self.gossip.by_kind.setdefault(RELAY, {})[server.id] = fact
        self.place(number, f"198.51.100.{10 + number}")
        for listener in self.gossip.listeners:
            listener(fact)
        return relay_id_of(server.key.public_key)

    def place(self, number: int, host: str) -> None:
        server = self.world.servers[number]
        self.gossip.places[server.id] = AddressFact(
            server_id=server.id,
            host=host,
            gossip_port=9102,
            http_port=9100,
            wireguard_port=51940,
            region="eu-central",
            counter=1,
            issued_ms=START_MS,
            expires_ms=START_MS + 1,
            encoded=b"",
        )

    def register(self, name: str, owner: str, *, region: str = "eu-central") -> str:
        key = key_of(name)
        found = introduced(
            key,
            self.world.mesh_id,
            box=hashlib.sha256(b"box" + key.public_key).digest(),
            host="203.0.113.9",
            host6="",
            port=9103,
            region=region,
            now_ms=self.clock.now_ms(),
        )
        body = {
            "relay": found.relay_id,
            "owner": owner,
            "introduction": msgspec.structs.asdict(found),
        }
        self.write(self.world.signed(self.world.servers[0].key, "relay.register", body))
        self.ledger.refold()
        held = self.ledger.state.get("relay", found.relay_id)
        change = Change(view="relay", key=found.relay_id, old=None, new=held)
        for views, subscriber in self.ledger.subscribers:
            if "relay" in views:
                subscriber([change])
        return found.relay_id


def report_on(
    mesh: RelayMesh,
    ticket: bytes,
    name: str,
    relay_key: SigningKey,
    **other: Any,
) -> dict[str, Any]:
    """Return an endpoint's report on a session by a ticket, with both signatures."""
    granted: Ticket = parse_ticket(ticket)
    now_ms = mesh.clock.now_ms()
    key = key_of(f"endpoint {name}")
    node = mesh.ledger.state.get("tree", node_id_of(key.public_key))
    usage = Usage(
        relay=granted.relay_id,
        session=granted.nonce,
        party=parse_wireguard_key(node["wireguard_key"]),
        from_bytes=1000,
        to_bytes=1000,
        started_ms=now_ms - 60_000,
        told_ms=now_ms,
    )
    said = {
        "ticket": b64u_encode(ticket),
        "usage": b64u_encode(signed_usage(relay_key, mesh.world.mesh_id, usage)),
        "sent": 12,
        "answered": 12,
        "silent_s": 0,
        "duration_s": 60,
        "latency_ms": 20,
        "jitter_ms": 1,
        "rating": 100,
        "time_ms": now_ms,
    }
    return signed_report(key, mesh.world.mesh_id, {**said, **other})
