"""What this endpoint was shown proofs of: it stays believed while no newer proof can be had.

believed.json   {peers: {node id: {address, name, wireguard_key}}, roster_number}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from services.base.storage.files import read_private, write_atomic
from services.kernel import canonical
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from pathlib import Path

    from seipd.agent.state import AgentState

FACTS: Final = ("name", "address", "wireguard_key")
MAX_PEERS: Final = 1000
MAX_BYTES: Final = 1 << 20


@dataclass(slots=True, kw_only=True)
class Believed:
    """The newest roster that was proved, and each peer as it was proved."""

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
    """Return what is remembered; nothing where the file is not there or is damaged."""
    try:
        value = canonical.decode_object(read_private(_path(state), max_bytes=MAX_BYTES))
        return Believed(roster_number=int(value["roster_number"]), peers=dict(value["peers"]))
    except (SeipdError, OSError, KeyError, TypeError, ValueError):
        return Believed()


def save_believed(state: AgentState, believed: Believed) -> None:
    """Write it down."""
    value = {"roster_number": believed.roster_number, "peers": believed.peers}
    write_atomic(_path(state), canonical.encode(value))


def _facts(peer: dict[str, Any]) -> dict[str, str]:
    return {name: str(peer[name]) for name in FACTS}


def _path(state: AgentState) -> Path:
    return state.folder / "believed.json"
