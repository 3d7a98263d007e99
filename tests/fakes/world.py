"""A little mesh without disk or network: keys, feeds as lists, and folds fed with them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
from typing import Any

from services.authority.ballots import view as ballots
from services.authority.dnskeys import view as dnskeys
from services.authority.dnsnames import view as dnsnames
from services.authority.enroll import view as enroll
from services.authority.governance import view as governance
from services.authority.ipam import view as ipam
from services.authority.names import view as names
from services.authority.policy import view as policy
from services.authority.recovery import view as recovery
from services.authority.relays import view as relays
from services.authority.releases import view as releases
from services.authority.rootkeys import view as rootkeys
from services.authority.serversecrets import view as serversecrets
from services.authority.splitdns import view as splitdns
from services.authority.tree import routes as tree_routes
from services.authority.tree import view as tree
from services.authority.trust import view as trust
from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.checkpoint import Checkpoint
from services.base.ledger.feed import ATTEST_KIND, ROSTER_KIND, Attest, Cosignature, feed_origin
from services.base.ledger.fold import Fold, HorizonError
from services.base.ledger.merkle import leaf_hash, root_of_row
from services.base.ledger.note import cosignature_input
from services.base.ledger.replay import Replay
from services.base.ledger.roster import Charter
from services.base.ledger.standing import Checked
from services.base.ledger.state import State
from services.kernel.addr import default_ranges, pick_backbone
from services.kernel.certificates import ServerCertificate
from services.kernel.errors import RejectedError
from services.kernel.hlc import Hlc
from services.kernel.ids import ServerId, b64u_encode, mesh_id_of, node_id_of, server_id_of
from services.kernel.records import PLATFORM, Entry, Record, draft_record

APPLIERS = {
    **tree.APPLIERS,
    **tree_routes.APPLIERS,
    **ipam.APPLIERS,
    **enroll.appliers(verify),
    **trust.APPLIERS,
    **names.APPLIERS,
    **dnsnames.APPLIERS,
    **dnskeys.appliers(verify),
    **splitdns.APPLIERS,
    **policy.APPLIERS,
    **recovery.APPLIERS,
    **relays.appliers(verify),
    **releases.APPLIERS,
    **serversecrets.APPLIERS,
    **governance.APPLIERS,
    **ballots.APPLIERS,
    **rootkeys.APPLIERS,
}
START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


def key_of(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def curve_key(name: str) -> str:
    return b64u_encode(hashlib.sha256(b"wg" + name.encode()).digest())


class Server:
    """A server and its feed."""

    def __init__(self, name: str) -> None:
        self.key = key_of(name)
        self.id: ServerId = server_id_of(self.key.public_key)
        self.entries: list[Entry] = []
        self.hlc = START_MS << 16


class Held:
    """A feed of the little mesh as a log holds it."""

    path = "ledger/feed"

    def __init__(self, server: Server, size: int) -> None:
        self._data = [entry.encode() for entry in server.entries[:size]]
        self.size = size

    def read(self, start: int, stop: int) -> list[bytes]:
        return self._data[start:stop]


class World:
    """Writes records into feeds; hands them to any number of folds."""

    def __init__(self, server_count: int = 2, **genesis: Any) -> None:
        self.root = key_of("root")
        self.mesh_id = mesh_id_of(self.root.public_key)
        self.root_node = node_id_of(self.root.public_key)
        self.customer = "00000000-0000-4000-8000-000000000001"
        self.servers = [Server(f"server {number}") for number in range(server_count)]
        self.serial = 0
        self.genesis = self.signed(
            self.root,
            "root.genesis",
            {
                "generation": 1,
                "public_key": b64u_encode(self.root.public_key),
                "domain": "mesh.internal",
                "ranges": default_ranges().value(),
                "activated_ms": START_MS,
                "expires_ms": START_MS + HOUR_MS,
                "version": 1,
                **genesis,
            },
        )
        self.charter = Charter(self.genesis)
        first = self.servers[0]
        for number, server in enumerate(self.servers):
            slices = tuple(
                str(default_ranges().slice_at(4 * number + step))
                for step in range(4 if not number else 1)
            )
            self.write(first, self.add_server(server, slices))
        for server in self.servers:
            self.name_roster(server)
        self.write(
            first, self.signed(self.root, "tree.create", {"node": self.root_node, "kind": "root"})
        )
        self.write(
            first,
            self.signed(
                first.key,
                "tree.create",
                {
                    "node": self.customer,
                    "kind": "customer",
                    "parent": self.root_node,
                    "name": "default",
                },
            ),
        )
        for server in self.servers:
            server.hlc = first.hlc

    def signed(
        self,
        key: SigningKey,
        kind: str,
        body: dict[str, Any],
        *,
        record_id: str | None = None,
        module: str = PLATFORM,
    ) -> Record:
        self.serial += 1
        draft = draft_record(
            kind=kind,
            body=body,
            actor=key.public_key,
            not_after=START_MS + HOUR_MS,
            record_id=record_id or f"{self.serial:032x}",
            module=module,
        )
        return dataclasses.replace(draft, actor_sig=key.sign(draft.signed_bytes(self.mesh_id)))

    def certificate(self, server: Server, slices: tuple[str, ...]) -> ServerCertificate:
        backbone = pick_backbone(server.key.public_key, default_ranges(), self.charter.backbones())
        return ServerCertificate(
            key=server.key.public_key,
            wireguard_key=hashlib.sha256(b"w" + server.key.public_key).digest(),
            tls_key_hash=bytes(32),
            region="eu-central",
            backbone=str(backbone),
            slices=slices,
            epoch=1,
        )

    def add_server(self, server: Server, slices: tuple[str, ...], **changes: Any) -> Record:
        body = {
            "number": self.charter.number + 1,
            "prev": self.charter.head,
            "servers": [self.certificate(server, slices).value()],
            "removed": [],
            "witnesses": [self.servers[0].id],
            **changes,
        }
        record = self.signed(self.root, "roster.change", body)
        self.charter.offer(record)
        return record

    def removal(self, server: Server, size: int | None = None) -> dict[str, Any]:
        """Return what a roster change says of a server that goes."""
        size = len(server.entries) if size is None else size
        root = self.root_at(server.id, size) if size else bytes(32)
        return {"server": server.id, "size": size, "root": b64u_encode(root or bytes(32))}

    def change(self, writer: Server, **changes: Any) -> Record:
        """Write a roster change that follows the newest one, by the rules or not."""
        body = {
            "number": self.charter.number + 1,
            "prev": self.charter.head,
            "servers": [],
            "removed": [],
            "witnesses": [self.servers[0].id],
            **changes,
        }
        record = self.signed(self.root, "roster.change", body)
        with contextlib.suppress(RejectedError):
            self.charter.offer(record)
        self.write(writer, record)
        return record

    def write(self, server: Server, record: Record, *, later_ms: int = 1) -> int:
        server.hlc += later_ms << 16
        server.entries.append(Entry(hlc=Hlc(server.hlc), record=record))
        return len(server.entries) - 1

    def name_roster(self, server: Server, **changes: Any) -> None:
        body = {"number": self.charter.number, "hash": self.charter.head, **changes}
        self.write(server, self.signed(server.key, ROSTER_KIND, body))

    def root_at(self, server_id: ServerId, size: int) -> bytes | None:
        server = next(one for one in self.servers if one.id == server_id)
        if size > len(server.entries):
            return None
        return root_of_row([leaf_hash(entry.encode()) for entry in server.entries[:size]])

    def attest(self, server: Server, size: int, time_s: int, *, forged: bool = False) -> None:
        root = self.root_at(server.id, size)
        text = Checkpoint(
            origin=feed_origin(self.mesh_id, server.id, 1), size=size, root=root
        ).text()
        signatures = []
        witnesses = self.charter.witnesses_at(self.charter.number)
        for number, witness in enumerate(one for one in self.servers if one.id in witnesses):
            key = key_of("stranger") if forged else witness.key
            time = time_s + 7 * number
            signature = key.sign(cosignature_input(text, time))
            signatures.append(Cosignature(witness=witness.id, time_s=time, signature=signature))
        body = Attest(size=size, root=root, signatures=tuple(signatures)).value()
        self.write(server, self.signed(server.key, ATTEST_KIND, body))

    def invite(self, server: Server, name: str, **changes: Any) -> tuple[str, SigningKey]:
        self.serial += 1
        invite_id, seed = f"{self.serial:032x}", key_of(f"invite {name}")
        body = {
            "invite": invite_id,
            "key": b64u_encode(seed.public_key),
            "role": "endpoint",
            "customer": self.customer,
            "region": None,
            "name": None,
            "expires_ms": START_MS + HOUR_MS // 2,
            "uses": 1,
            **changes,
        }
        self.write(server, self.signed(server.key, "auth.invite", body))
        return invite_id, seed

    def redeem(self, host: str, invite_id: str, seed: SigningKey, **changes: Any) -> Record:
        key = key_of(f"endpoint {host}")
        signed = enroll.redeem_input(self.mesh_id, invite_id, key.public_key)
        body = {
            "invite": invite_id,
            "signature": b64u_encode(seed.sign(signed)),
            "role": "endpoint",
            "name": host,
            "wireguard_key": curve_key(host),
            **changes,
        }
        return self.signed(key, "auth.redeem", body)

    def assign(self, server: Server, name: str, address: str) -> Record:
        node = node_id_of(key_of(f"endpoint {name}").public_key)
        return self.signed(server.key, "ipam.assign", {"node": node, "address": address})

    def fold(self, **options: Any) -> Fold:
        return Fold(
            charter=Charter(self.genesis),
            state=State(),
            appliers=APPLIERS,
            verify=verify,
            root_at=self.root_at,
            **options,
        )

    def checked(self, entry: Entry) -> Checked:
        record = entry.record
        good = verify(record.actor, record.signed_bytes(self.mesh_id), record.actor_sig)
        return Checked(entry if good else None)

    def deliver(self, fold: Fold, server: Server, count: int | None = None) -> None:
        held = fold.feeds[server.id].size if server.id in fold.feeds else 0
        stop = len(server.entries) if count is None else min(held + count, len(server.entries))
        fold.add(server.id, held, [self.checked(one) for one in server.entries[held:stop]])

    def folded(self, **options: Any) -> Fold:
        """Fold all feeds whole, as a start does."""
        fold = self.fold(**options)
        fold.publish_charter()
        logs = {server.id: Held(server, len(server.entries)) for server in self.servers}
        Replay(fold, own_id=server_id_of(self.root.public_key), verify=verify).run(lambda: logs)
        return fold

    def updated(self, fold: Fold) -> Fold:
        """Deliver what is new; fold anew where that is asked for, as the ledger does."""
        try:
            for server in self.servers:
                self.deliver(fold, server)
        except HorizonError:
            return self.folded()
        return fold


def shuffled(world: World, seed: int) -> Fold:
    """Deliver the feeds in pieces, in an order of their own."""
    rng = random.Random(seed)  # noqa: S311 (a model's shuffle)
    fold = world.fold()
    fold.publish_charter()
    waiting = list(world.servers)
    while waiting:
        server = rng.choice(waiting)
        try:
            world.deliver(fold, server, rng.randint(1, 4))
        except HorizonError:
            return world.folded()
        if server.id in fold.feeds and fold.feeds[server.id].size == len(server.entries):
            waiting.remove(server)
    return fold
