"""Whether what a server says of a key is what the servers signed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.base.ledger.mapproof import key_hash, verify_map_proof
from services.kernel import canonical
from services.kernel.errors import SeipdError
from services.kernel.ids import b64u_encode
from services.mesh.proofs.errors import RefusedError, UnprovenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.ids import ServerId
    from services.mesh.proofs.roots import AgreedRoot
    from services.mesh.proofs.shapes import MapProof


def proven_value(agreed: AgreedRoot, proof: MapProof, *, view: str, key: str) -> Any:  # noqa: ANN401 (JSON)
    """Return the object that the map holds at the agreed root; None where it holds none.

    Raises:
        RefusedError: the proof does not lead to the root.
    """
    if not verify_map_proof(agreed.root, view, key, proof.leaf, proof.siblings):
        raise RefusedError("the proof does not lead to the root that was signed")
    if proof.leaf is None:
        return None
    try:
        leaf: Any = canonical.decode_canonical(proof.leaf)
    except SeipdError as error:
        raise RefusedError("the leaf that was proved is no object of the map") from error
    # Its shape was looked at with the proof: a leaf is [view, key, value].
    named, called, value = leaf
    return value if key_hash(named, called) == key_hash(view, key) else None


def check_server(
    agreed: AgreedRoot, proof: MapProof, *, server_id: ServerId, key: bytes, wireguard_key: bytes
) -> None:
    """Check that a server is one now, with these keys.

    Raises:
        RefusedError: false, ``not_a_server``, or ``key_differs``.
    """
    value = proven_value(agreed, proof, view="roster", key=server_id)
    if value is None:
        raise RefusedError(f"{server_id} is no server of the mesh any more", code="not_a_server")
    shown = {"key": b64u_encode(key), "wireguard_key": b64u_encode(wireguard_key)}
    _require_same(value, shown, what=server_id)


def check_endpoint(
    agreed: AgreedRoot, proof: MapProof, *, node_id: str, shown: Mapping[str, Any]
) -> None:
    """Check what is shown of an endpoint: some of its key, WireGuard key, address, name and routes.

    A name, an address or a route may have changed since the root was signed; a key never does.

    Raises:
        RefusedError: false, or ``key_differs``.
        UnprovenError: it is not in the state that was signed, or not so.
    """
    value = proven_value(agreed, proof, view="tree", key=node_id)
    if value is None:
        raise UnprovenError(
            "it is not in the state that the servers signed last", mend="wait for some seconds"
        )
    keys = {name: text for name, text in shown.items() if name in ("key", "wireguard_key")}
    _require_same(value, keys, what=shown.get("name", node_id))
    for name, held in shown.items():
        if value.get(name) != held:
            raise UnprovenError(
                f"its {name} is another in the state that the servers signed last",
                mend="wait for some seconds",
            )


def _require_same(value: Mapping[str, Any], shown: Mapping[str, str], *, what: str) -> None:
    for name, text in shown.items():
        if value.get(name) != text:
            raise RefusedError(
                f"the {name.replace('_', ' ')} of {what} is another in the state that the servers"
                " signed",
                code="key_differs",
            )
