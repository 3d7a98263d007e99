"""A mesh as it was founded: the root, the genesis, the roster, and where everybody is."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.base.crypto.signatures import SigningKey
from services.base.ledger.feed import feed_origin
from services.base.ledger.roster import Charter
from services.kernel.addr import default_ranges, pick_backbone
from services.kernel.certificates import ServerCertificate
from services.kernel.ids import ServerId, b64u_encode, mesh_id_of, node_id_of, server_id_of
from services.kernel.records import Record, draft_record
from services.mesh.gossip.addresses import Advertisement, sign_fact

if TYPE_CHECKING:
    from services.kernel.ids import MeshId

START_MS = 1_800_000_000_000
LIFETIME_MS = 30 * 86_400_000
GOSSIP_PORT = 9102
CHANGE_SERVERS = 20  # so many fit in one record


def key_of(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def signed_record(
    mesh_id: MeshId, key: SigningKey, kind: str, body: dict[str, Any], record_id: str
) -> Record:
    draft = draft_record(
        kind=kind,
        body=body,
        actor=key.public_key,
        not_after=START_MS + LIFETIME_MS,
        record_id=record_id,
    )
    return dataclasses.replace(draft, actor_sig=key.sign(draft.signed_bytes(mesh_id)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Founding:
    """What every server knows when it starts; nobody changes it."""

    root: SigningKey
    mesh_id: MeshId
    root_node: str
    customer: str
    genesis: Record
    changes: tuple[Record, ...]
    first_records: tuple[Record, ...]
    keys: tuple[SigningKey, ...]
    names: tuple[ServerId, ...]
    slices: tuple[str, ...]
    backbones: tuple[str, ...]
    facts: tuple[bytes, ...]

    def charter(self) -> Charter:
        charter = Charter(self.genesis)
        for change in self.changes:
            charter.offer(change)
        return charter

    def origin(self, server_id: str, epoch: int = 1) -> str:
        return feed_origin(self.mesh_id, ServerId(server_id), epoch)


def public_host(number: int) -> str:
    return f"198.18.{number // 250}.{number % 250 + 1}"


@functools.lru_cache(maxsize=16)
def found(server_count: int, witness_count: int, spare_count: int = 0) -> Founding:
    """Found a mesh; the spare servers have keys and nothing else yet."""
    root = key_of("root")
    mesh_id = mesh_id_of(root.public_key)
    keys = tuple(key_of(f"server {number}") for number in range(server_count + spare_count))
    names = tuple(server_id_of(key.public_key) for key in keys)
    ranges = default_ranges()
    slices = tuple(str(ranges.slice_at(number)) for number in range(len(keys)))
    genesis = signed_record(
        mesh_id,
        root,
        "root.genesis",
        {
            "generation": 1,
            "public_key": b64u_encode(root.public_key),
            "domain": "mesh.internal",
            "ranges": ranges.value(),
            "activated_ms": START_MS,
            "expires_ms": START_MS + LIFETIME_MS,
            "version": 1,
        },
        f"{1:032x}",
    )
    charter = Charter(genesis)
    certificates = []
    taken: set[str] = set()
    for number, key in enumerate(keys):
        backbone = str(pick_backbone(key.public_key, ranges, frozenset(taken)))
        taken.add(backbone)
        certificates.append(certificate_of(key, backbone, (slices[number],)))
    changes = []
    for start in range(0, server_count, CHANGE_SERVERS):
        body = {
            "number": charter.number + 1,
            "prev": charter.head,
            "servers": [one.value() for one in certificates[start:server_count][:CHANGE_SERVERS]],
            "removed": [],
            "witnesses": list(names[:witness_count]),
        }
        change = signed_record(mesh_id, root, "roster.change", body, f"{2 + len(changes):032x}")
        charter.offer(change)
        changes.append(change)
    customer = "00000000-0000-4000-8000-000000000001"
    root_node = node_id_of(root.public_key)
    first = (
        ("tree.create", {"node": root_node, "kind": "root"}),
        (
            "tree.create",
            {"node": customer, "kind": "customer", "parent": root_node, "name": "default"},
        ),
    )
    return Founding(
        root=root,
        mesh_id=mesh_id,
        root_node=root_node,
        customer=customer,
        genesis=genesis,
        changes=tuple(changes),
        first_records=tuple(
            signed_record(mesh_id, root, kind, body, f"{1000 + number:032x}")
            for number, (kind, body) in enumerate(first)
        ),
        keys=keys,
        names=names,
        slices=slices,
        backbones=tuple(one.backbone for one in certificates),
        facts=tuple(
            fact_of(mesh_id, key, number) for number, key in enumerate(keys[:server_count])
        ),
    )


def certificate_of(
    key: SigningKey, backbone: str, slices: tuple[str, ...], *, epoch: int = 1
) -> ServerCertificate:
    return ServerCertificate(
        key=key.public_key,
        wireguard_key=hashlib.sha256(b"w" + key.public_key).digest(),
        tls_key_hash=bytes(32),
        region="eu-central",
        backbone=backbone,
        slices=slices,
        epoch=epoch,
    )


def advertisement_of(host: str) -> Advertisement:
    return Advertisement(host=host, http_port=9100, wireguard_port=51940, region="eu-central")


def fact_of(mesh_id: MeshId, key: SigningKey, number: int) -> bytes:
    place = advertisement_of(public_host(number))
    now_ms = START_MS - 1000
    return sign_fact(
        key,
        bytes.fromhex(mesh_id),
        place,
        gossip_port=GOSSIP_PORT,
        counter=now_ms,
        now_ms=now_ms,
    ).encoded
