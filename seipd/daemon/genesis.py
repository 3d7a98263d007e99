"""The first records of a mesh, and the files by which a server knows who it is."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.authority.governance.parameters import PARAMETERS, ROTATION, require_allowed
from services.authority.rootkeys.rotating import DAY_MS, lifetime_ms
from services.authority.rootkeys.service import ROOT_KEY_ID
from services.authority.trust.tiers import Tier, said_tier
from services.authority.trust.verdicts import VERDICT_KIND, founder_verdict
from services.base.crypto.signatures import verify
from services.base.ledger.author import Author, sign_by_root
from services.base.ledger.rootchain import RootChainError
from services.base.ledger.roster import Charter
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel import canonical
from services.kernel.addr import GENESIS_SLICES, Ranges, pick_backbone
from services.kernel.certificates import ServerCertificate
from services.kernel.errors import CorruptError, NotFoundError, SeipdError
from services.kernel.ids import MeshId, b64u_encode, mesh_id_of, new_uuid, node_id_of
from services.kernel.records import record_from_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seipd.client.trust import KnownRoot
    from services.authority.governance.parameters import Value
    from services.authority.trust.tiers import TrustRules
    from services.base.keywrap.identity import ServerIdentity
    from services.base.ledger.service import LedgerService
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.kernel.signing import Signer

PROTOCOL_VERSION = 1
MAX_CHAIN_BYTES = 64 << 20
DEFAULT_CUSTOMER = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshFacts:
    """What ``init`` decides once for the whole mesh."""

    domain: str
    region: str
    ranges: Ranges
    parameters: Mapping[str, Value] = field(default_factory=dict)
    trust: TrustRules | None = None
    """What tier 1 takes; where it is None, new servers begin in it."""


async def found_mesh(
    facts: MeshFacts,
    *,
    identity: ServerIdentity,
    tls_key_hash: bytes,
    signer: Signer,
    clock: Clock,
) -> list[Record]:
    """Return the genesis record and the roster change that names the first server.

    Raises:
        RejectedError: ``unknown_parameter`` or ``out_of_range``.
        UnavailableError: the signer does not answer.
    """
    root = await signer.public_key(scope="platform", key_id=ROOT_KEY_ID)
    mesh_id = mesh_id_of(root.public_key)
    now_ms = clock.now_ms()
    body: dict[str, Any] = {
        "generation": 1,
        "public_key": b64u_encode(root.public_key),
        "domain": facts.domain,
        "ranges": facts.ranges.value(),
        "activated_ms": now_ms,
        "expires_ms": now_ms + lifetime_ms(_interval_ms(facts)),
        "version": PROTOCOL_VERSION,
    }
    for name, value in facts.parameters.items():
        require_allowed(name, value)
        body.setdefault("parameters", {})[name] = value
    if facts.trust is not None:
        body["trust"] = facts.trust.value()

    async def sign(kind: str, body: dict[str, Any]) -> Record:
        return await sign_by_root(
            signer,
            kind=kind,
            body=body,
            key_id=ROOT_KEY_ID,
            public_key=root.public_key,
            mesh_id=mesh_id,
            clock=clock,
        )

    genesis = await sign("root.genesis", body)
    charter = Charter(genesis)
    certificate = _first_certificate(facts, identity, tls_key_hash)
    change = await sign(
        "roster.change",
        {
            "number": 1,
            "prev": charter.head,
            "servers": [certificate.value()],
            "removed": [],
            "witnesses": [certificate.server_id],
        },
    )
    charter.offer(change)
    return charter.records


def _interval_ms(facts: MeshFacts) -> int:
    days = facts.parameters.get(ROTATION, PARAMETERS[ROTATION].default)
    require_allowed(ROTATION, days)
    return int(days) * DAY_MS


async def write_first_records(
    ledger: LedgerService,
    *,
    charter_records: Sequence[Record],
    author: Author,
    signer: Signer,
    clock: Clock,
) -> None:
    """Append what every feed of the mesh builds on; what is there already is left alone.

    Raises:
        UnavailableError: the signer does not answer.
    """
    root_key = charter_records[0].actor
    root_node = node_id_of(root_key)
    if ledger.state.get("tree", root_node) is None:
        for record in charter_records:
            await ledger.submit([record])
        granted = {
            "node": root_node,
            "key": b64u_encode(author.public_key),
            "capability": "admin",
        }
        drafts = [("tree.create", {"node": root_node, "kind": "root"}), ("tree.grant", granted)]
        records = [
            await sign_by_root(
                signer,
                kind=kind,
                body=body,
                key_id=ROOT_KEY_ID,
                public_key=root_key,
                mesh_id=ledger.mesh_id,
                clock=clock,
            )
            for kind, body in drafts
        ]
        await ledger.submit(records)
    if ledger.state.get("name", f"{root_node}/{DEFAULT_CUSTOMER}") is None:
        customer = {
            "node": new_uuid(secrets.token_bytes(16)),
            "kind": "customer",
            "parent": root_node,
            "name": DEFAULT_CUSTOMER,
        }
        await ledger.submit([author.record("tree.create", customer)])
    if said_tier(ledger.state, ledger.server_id) is not Tier.ATTESTED:
        # The only witness there is: who is to vote on anything while it is alone?
        await ledger.submit([author.record(VERDICT_KIND, founder_verdict(ledger.server_id))])


def save_charter(identity_folder: Path, records: Sequence[Record], region: str) -> None:
    """Write ``root_chain.json``, ``server_cert.json`` and ``region``; the chain last."""
    make_private_dir(identity_folder)
    newest = next(one.body["servers"] for one in reversed(records) if one.body.get("servers"))
    write_atomic(identity_folder / "region", f"{region}\n".encode())
    write_atomic(identity_folder / "server_cert.json", canonical.encode(newest))
    chain = canonical.encode([record.value() for record in records])
    write_atomic(identity_folder / "root_chain.json", chain)


def load_charter(identity_folder: Path) -> list[Record]:
    """Read and verify the genesis record and the roster changes known at the last start.

    Raises:
        NotFoundError: this data root belongs to no mesh yet.
        CorruptError: damaged, or a signature in it is wrong.
    """
    path = identity_folder / "root_chain.json"
    if not path.exists():
        raise NotFoundError(
            "this data root belongs to no mesh yet",
            code="no_mesh",
            mend="seipd init makes a mesh, seipd join TOKEN joins one",
        )
    try:
        value = canonical.decode_canonical(read_private(path, max_bytes=MAX_CHAIN_BYTES))
        records = [record_from_value(one) for one in value] if isinstance(value, list) else []
        verify_charter(records)
    except SeipdError as error:
        raise CorruptError(
            f"root_chain.json: {error}",
            path="identity/root_chain.json",
            mend="restore it from a backup, or join the mesh again",
        ) from error
    return records


def verify_charter(
    records: Sequence[Record], mesh_id: MeshId | None = None, known: KnownRoot | None = None
) -> Charter:
    """Check every signature of a genesis record and the roster changes after it.

    Args:
        records: the genesis first.
        mesh_id: the mesh that it has to be of; any unless given.
        known: a root key that it has to lead to: by one that another followed long ago, anybody
            could have made the rest of it.

    Raises:
        CorruptError: a signature is wrong, or it is not the mesh expected.
        InputError: malformed.
        RejectedError: a change breaks a rule of the roster; ``root_old``.
    """
    if not records:
        raise CorruptError("it is empty", path="identity/root_chain.json")
    charter = Charter(records[0])
    if mesh_id is not None and charter.genesis.mesh_id != mesh_id:
        raise CorruptError("it is of another mesh", path="identity/root_chain.json")
    for record in records:
        signed = record.signed_bytes(charter.genesis.mesh_id)
        if not verify(record.actor, signed, record.actor_sig):
            raise CorruptError("a signature is wrong", path="identity/root_chain.json")
    for record in records[1:]:
        charter.offer(record)
    if charter.number != len(records) - 1:
        raise CorruptError("a change is missing", path="identity/root_chain.json")
    found = charter.chain.of_fingerprint(known.fingerprint) if known else None
    if known is not None and (found is None or found.generation != known.generation):
        raise RootChainError(
            f"it does not lead to generation {known.generation} of the root", code="root_old"
        )
    return charter


def _first_certificate(
    facts: MeshFacts, identity: ServerIdentity, tls_key_hash: bytes
) -> ServerCertificate:
    backbone = pick_backbone(identity.public_key, facts.ranges, frozenset())
    return ServerCertificate(
        key=identity.public_key,
        wireguard_key=identity.wireguard_public_key,
        tls_key_hash=tls_key_hash,
        region=facts.region,
        backbone=str(backbone),
        slices=tuple(str(facts.ranges.slice_at(number)) for number in range(GENESIS_SLICES)),
        epoch=1,
    )
