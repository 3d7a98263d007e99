"""What must hold of a mesh that is healed and quiet, judged by an independent reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from services.kernel.records import decode_entry
from tests.fakes.reference_fold import map_root, reference
from tests.sim.mesh import heads

if TYPE_CHECKING:
    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.state import State
    from services.base.ledger.writer import Receipt
    from services.kernel.records import Entry, Record
    from tests.sim.mesh import Mesh
    from tests.sim.server import SimServer


class Broken(AssertionError):  # noqa: N818 (what a test says)
    """A promise of the mesh does not hold."""


@dataclass(frozen=True)
class _Author:
    id: str
    entries: list[Entry]


class _Reading:
    """One server's feeds in the shape that the reference fold reads."""

    def __init__(self, mesh: Mesh, server: SimServer) -> None:
        self._held = server.ledger.held
        self.mesh_id = mesh.founding.mesh_id
        self.genesis: Record = mesh.founding.genesis
        self.root: SigningKey = mesh.founding.root
        self.servers = [
            _Author(name, [decode_entry(data) for data in copy.read(0, copy.size)])
            for name, copy in sorted(self._held.items())
        ]

    def root_at(self, server_id: str, size: int) -> bytes | None:
        return self._held[server_id].root_at(size)


def check(mesh: Mesh, receipts: list[Receipt]) -> None:
    """Check everything that is promised.

    Raises:
        Broken: says which server and what.
    """
    honest = mesh.honest()
    for server in honest:
        if server.fatal:
            raise Broken(f"server {server.number} would have ended: {server.fatal!r}")
    folding = [server for server in honest if not server.ledger.lazy]
    check_same(mesh, honest, folding)
    check_state(folding[0].ledger.fold.state)
    check_anew(folding[0])
    if not any(server.forks for server in honest):
        check_rights(mesh, folding[0])
    check_kept(honest, receipts)


def check_same(mesh: Mesh, honest: list[SimServer], folding: list[SimServer]) -> None:
    if not mesh.agrees():
        raise Broken(f"the servers hold different feeds: {differences(honest)}")
    hashes = {server.ledger.fold.state.root() for server in folding}
    if len(hashes) != 1:
        by_hash: dict[str, list[int]] = {}
        for server in folding:
            root = server.ledger.fold.state.root().hex()[:12]
            by_hash.setdefault(root, []).append(server.number)
        raise Broken(f"equal feeds, different state_hash: {by_hash}")


def check_state(state: State) -> None:
    """No address is held twice, and what points to a node is pointed back to."""
    nodes = {key: value for _, key, value in state.scan("tree")}
    held = {key: value for _, key, value in state.scan("ipam")}
    if {node["address"]: key for key, node in nodes.items() if "address" in node} != held:
        raise Broken("addresses and nodes do not name each other")
    addresses = [node["address"] for node in nodes.values() if "address" in node]
    if len(addresses) != len(set(addresses)):
        raise Broken("an address is held twice")
    keys = [node["wireguard_key"] for node in nodes.values() if "wireguard_key" in node]
    if len(keys) != len(set(keys)):
        raise Broken("a WireGuard key is held twice")


def check_anew(server: SimServer) -> None:
    """Folding from the first record gives what living through it gave."""
    anew = server.ledger.folded_anew()
    if anew.state.root() != server.ledger.fold.state.root():
        raise Broken(f"server {server.number} has another state when it folds anew")


def check_rights(mesh: Mesh, server: SimServer) -> None:
    """Recompute from the feeds alone what may have effect, and compare."""
    fold = server.ledger.fold
    wanted, effective = reference(_Reading(mesh, server))  # type: ignore[arg-type]
    held = {(view, key): value for view, key, value in objects(fold.state)}
    if held != wanted.objects or fold.state.root() != map_root(wanted.objects):
        places = held.keys() | wanted.objects.keys()
        other = [one for one in places if held.get(one) != wanted.objects.get(one)]
        raise Broken(f"the state is not what the records give: {sorted(other)}")
    acted = {(one.author, one.index) for one in fold._items if one.refusal is None}
    if not acted <= effective:
        raise Broken(f"these acted without right: {sorted(acted - effective)}")
    if any(one.refusal == "internal" for one in fold._items):
        raise Broken("a record tripped its rule")


def check_kept(honest: list[SimServer], receipts: list[Receipt]) -> None:
    authors = {server.name for server in honest}
    for server in honest:
        for receipt in receipts:
            if receipt.server_id not in authors:
                continue
            copy = server.ledger.held.get(receipt.server_id)
            data = copy.read(receipt.index, receipt.index + 1) if copy else []
            if not data or f'"id":"{receipt.record_id}"'.encode() not in data[0]:
                raise Broken(
                    f"server {server.number} lacks {receipt.record_id}, which "
                    f"{receipt.server_id} answered for at {receipt.index}"
                )


def objects(state: State) -> Any:
    return (orjson.loads(payload) for bucket in state.leaves() for _, payload in bucket)


def differences(honest: list[SimServer]) -> dict[str, dict[tuple[int, str], list[int]]]:
    """Return, for each feed on which servers differ, who holds how much of which story."""
    result: dict[str, dict[tuple[int, str], list[int]]] = {}
    held = {server.number: heads(server) for server in honest if server.is_up}
    for author in sorted({name for one in held.values() for name in one}):
        by_head: dict[tuple[int, str], list[int]] = {}
        for number, one in held.items():
            size, root = one.get(author, (0, b""))
            by_head.setdefault((size, root.hex()[:8]), []).append(number)
        if len(by_head) > 1:
            result[author] = by_head
    busy = [server.number for server in honest if not server.is_up or server.ledger.is_busy]
    return {**result, "busy": {(0, ""): busy}} if busy else result
