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
CUSTOMER = "00000000-0000-4000-8000-000000000001"
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
    root_node = node_id_of(root.public_key)
    keys = tuple(key_of(f"server {number}") for number in range(server_count + spare_count))
    names = tuple(server_id_of(key.public_key) for key in keys)
    certificates = _certificates_of(keys)
    genesis = _genesis_of(root)
    return Founding(
        root=root,
        mesh_id=mesh_id,
        root_node=root_node,
        customer=CUSTOMER,
        genesis=genesis,
        changes=_changes_of(root, genesis, certificates[:server_count], names[:witness_count]),
        first_records=(
            signed_record(
                mesh_id, root, "tree.create", {"node": root_node, "kind": "root"}, f"{1000:032x}"
            ),
            signed_record(
                mesh_id,
                root,
                "tree.create",
                {"node": CUSTOMER, "kind": "customer", "parent": root_node, "name": "default"},
                f"{1001:032x}",
            ),
        ),
        keys=keys,
        names=names,
        slices=tuple(one.slices[0] for one in certificates),
        backbones=tuple(one.backbone for one in certificates),
        facts=tuple(
            fact_of(mesh_id, key, number) for number, key in enumerate(keys[:server_count])
        ),
    )


def _genesis_of(root: SigningKey) -> Record:
    body = {
        "generation": 1,
        "public_key": b64u_encode(root.public_key),
        "domain": "mesh.internal",
        "ranges": default_ranges().value(),
        "activated_ms": START_MS,
        "expires_ms": START_MS + LIFETIME_MS,
        "version": 1,
    }
    return signed_record(mesh_id_of(root.public_key), root, "root.genesis", body, f"{1:032x}")


def _certificates_of(keys: tuple[SigningKey, ...]) -> list[ServerCertificate]:
    ranges = default_ranges()
    certificates: list[ServerCertificate] = []
    for number, key in enumerate(keys):
        taken = frozenset(one.backbone for one in certificates)
        backbone = str(pick_backbone(key.public_key, ranges, taken))
        certificates.append(certificate_of(key, backbone, (str(ranges.slice_at(number)),)))
    return certificates


def _changes_of(
    root: SigningKey,
    genesis: Record,
    certificates: list[ServerCertificate],
    witnesses: tuple[ServerId, ...],
) -> tuple[Record, ...]:
    """Return the changes that let all of them in, as many at once as fit."""
    mesh_id = mesh_id_of(root.public_key)
    charter, changes = Charter(genesis), []
    for start in range(0, len(certificates), CHANGE_SERVERS):
        body = {
            "number": charter.number + 1,
            "prev": charter.head,
            "servers": [one.value() for one in certificates[start : start + CHANGE_SERVERS]],
            "removed": [],
            "witnesses": list(witnesses),
        }
        change = signed_record(mesh_id, root, "roster.change", body, f"{2 + len(changes):032x}")
        charter.offer(change)
        changes.append(change)
    return tuple(changes)


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
