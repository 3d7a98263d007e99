"""What this endpoint was shown proofs of: it stays believed while no newer proof can be had.

believed.json   {peers: {node id: {address, name, wireguard_key}}, root, roster_number}

``root`` is the newest root key that was shown: {fingerprint, generation, recoveries}.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.noting import note
from services.base.ledger.rootwalk import chain_from_values
from services.base.ledger.seenroot import SeenRoot
from services.base.storage.files import read_private
from services.kernel import canonical
from services.kernel.errors import CorruptError, SeipdError
from services.kernel.ids import MeshId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from seipd.agent.state import AgentState

FACTS: Final = ("name", "address", "wireguard_key")
MAX_PEERS: Final = 1000
MAX_BYTES: Final = 1 << 20


@dataclass(slots=True, kw_only=True)
class Believed:
    """The newest root and roster that were proved, and each peer as it was proved."""

    root: SeenRoot
    roster_number: int = 0
    peers: dict[str, dict[str, str]] = field(default_factory=dict)

    def holds(self, peer: dict[str, Any]) -> bool:
        """Say whether a peer was proved to be just so."""
        return self.peers.get(peer["node_id"]) == _facts(peer)

    def add(self, peer: dict[str, Any]) -> None:
        """Remember a peer; another is forgotten where there are too many."""
        self.peers.pop(peer["node_id"], None)
        self.peers[peer["node_id"]] = _facts(peer)
        while len(self.peers) > MAX_PEERS:
            del self.peers[next(iter(self.peers))]


def load_believed(state: AgentState) -> Believed:
    """Return what is remembered; what the join showed where the file is not there or is damaged."""
    try:
        value = canonical.decode_object(read_private(_path(state), max_bytes=MAX_BYTES))
        return Believed(
            root=SeenRoot.from_value(value["root"]),
            roster_number=int(value["roster_number"]),
            peers=dict(value["peers"]),
        )
    except (SeipdError, OSError, KeyError, TypeError, ValueError):
        return Believed(root=seen_root(state.mesh()))


def save_believed(state: AgentState, believed: Believed) -> None:
    """Note it."""
    value = {
        "root": believed.root.value(),
        "roster_number": believed.roster_number,
        "peers": believed.peers,
    }
    note(_path(state), value)


def seen_root(mesh: Mapping[str, Any]) -> SeenRoot:
    """Return the newest root key that was shown at the join, of what ``mesh.json`` holds.

    Raises:
        CorruptError: it holds no root key chain of its mesh.
    """
    mesh_id = MeshId(mesh["mesh_id"])
    if not mesh.get("chain"):
        return SeenRoot.of_mesh(mesh_id)
    try:
        return SeenRoot.of_chain(chain_from_values(mesh["chain"], mesh_id).chain)
    except SeipdError as error:
        raise CorruptError(
            f"mesh.json: {error}", path="mesh.json", mend="seip leave, then join again"
        ) from error


def _facts(peer: dict[str, Any]) -> dict[str, str]:
    return {name: str(peer[name]) for name in FACTS}


def _path(state: AgentState) -> Path:
    return state.folder / "believed.json"
