"""Whether the record by which an endpoint joined is in the log of the server that let it in. Pure.

What proves it is a C2SP tlog-proof with the entry as its extra data: the entry leads to a
checkpoint that the server signed, and the root signed for the server's key. So a server that shows
it can't leave the record out later without lying twice, for which there is a proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.base.crypto.signatures import verify
from services.base.ledger.feed import feed_origin
from services.base.ledger.note import NoteVerifier
from services.base.ledger.proof import parse_proof, verify_proof
from services.kernel.errors import SeipdError
from services.kernel.ids import b64u_encode
from services.kernel.records import decode_entry
from services.mesh.proofs.byroot import changes_by_root, shown_walk
from services.mesh.proofs.errors import RefusedError

if TYPE_CHECKING:
    from services.base.ledger.seenroot import SeenRoot
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import MeshId
    from services.kernel.records import Record

JOIN_KIND: Final = "auth.redeem"
_FALSE: Final = "certificate_false"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPlace:
    """Where a record lies, and how long the log was when that was shown."""

    index: int
    size: int
    record: Record


def check_own_record(
    proof: bytes,
    *,
    mesh_id: MeshId,
    server: ServerCertificate,
    key: bytes,
    wireguard_key: bytes,
) -> RecordPlace:
    """Check that the record by which this endpoint joined is in a server's log.

    Args:
        proof: the tlog-proof.
        mesh_id: the mesh.
        server: the certificate, checked, of the server whose log it is.
        key: this endpoint's identity key.
        wireguard_key: its WireGuard key.

    Raises:
        RefusedError: ``record_false``: the proof proves nothing, or something else.
    """
    origin = feed_origin(mesh_id, server.server_id, server.epoch)
    try:
        shown = parse_proof(proof)
        entry = shown.extra or b""
        verifier = NoteVerifier(name=origin, public_key=server.key)
        checkpoint = verify_proof(shown, entry=entry, verifier=verifier, origin=origin)
        record = decode_entry(entry).record
    except SeipdError as error:
        raise RefusedError(f"the record of this join: {error}", code="record_false") from error
    if record.kind != JOIN_KIND or record.actor != key:
        raise RefusedError("the record is not of this join", code="record_false")
    if record.body.get("wireguard_key") != b64u_encode(wireguard_key):
        raise RefusedError("the record of this join holds another key", code="record_false")
    if not verify(key, record.signed_bytes(mesh_id), record.actor_sig):
        raise RefusedError("the record of this join is not signed by us", code="record_false")
    return RecordPlace(index=shown.index, size=checkpoint.size, record=record)


def named_certificate(
    value: object,
    *,
    mesh_id: MeshId,
    server_id: str,
    chain: object = None,
    seen: SeenRoot | None = None,
    now_ms: int | None = None,
) -> ServerCertificate:
    """Return what the root says of a server, from the roster change that names it, as JSON.

    Args:
        value: the change.
        mesh_id: the mesh.
        server_id: the server.
        chain: the root key chain as it is shown, as JSON; empty where the first key signed it.
        seen: the newest root key that was ever shown here.
        now_ms: when the window of the key that signed has to be open; any time unless given.

    Raises:
        RefusedError: ``certificate_false``: not by the root, or not about that server;
            ``root_old``.
    """
    walk = shown_walk(chain, mesh_id=mesh_id, seen=seen, code=_FALSE)
    ((_, change),) = changes_by_root(
        [value], mesh_id=mesh_id, walk=walk, now_ms=now_ms, code=_FALSE
    )
    for certificate in change.servers:
        if certificate.server_id == server_id:
            return certificate
    raise RefusedError(f"the certificate is not of {server_id}", code=_FALSE)
