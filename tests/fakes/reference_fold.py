"""The fold as a page of text would have it: gather everything, sort once, apply from empty.

It shares with the real one only the views and the roster's rules; state, order, settling and
proof of authority are written anew, and nothing is ever taken back.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.base.crypto.signatures import verify
from services.base.ledger.note import cosignature_input
from services.base.ledger.roster import Charter
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import b64u_decode, b64u_encode, server_id_of
from services.kernel.views import FoldContext
from tests.fakes.world import APPLIERS

if TYPE_CHECKING:
    from services.base.ledger.rootchain import Generation
    from services.kernel.records import Record
    from tests.fakes.world import Server, World

FOREVER_MS = 1 << 62


@dataclass
class DictState:
    """Objects in a dictionary."""

    objects: dict[tuple[str, str], Any] = field(default_factory=dict)

    def get(self, view: str, key: str) -> Any:
        return copy.deepcopy(self.objects.get((view, key)))

    def put(self, view: str, key: str, value: Any) -> None:
        self.objects[view, key] = copy.deepcopy(value)

    def delete(self, view: str, key: str) -> None:
        self.objects.pop((view, key), None)


def map_root(objects: dict[tuple[str, str], Any]) -> bytes:
    """Return the root of the Merkle map by recursion over sorted leaves."""

    def subtree(leaves: list[tuple[bytes, bytes]], depth: int) -> bytes:
        if not leaves:
            return bytes(32)
        if len(leaves) == 1:
            return leaves[0][1]
        halves: tuple[list[tuple[bytes, bytes]], ...] = ([], [])
        for leaf in leaves:
            halves[int.from_bytes(leaf[0], "big") >> (255 - depth) & 1].append(leaf)
        both = subtree(halves[0], depth + 1) + subtree(halves[1], depth + 1)
        return hashlib.sha256(b"\x01" + both).digest()

    leaves = []
    for (view, key), value in objects.items():
        place = hashlib.sha256(view.encode() + b"\0" + key.encode()).digest()
        payload = json.dumps([view, key, value], separators=(",", ":"), sort_keys=True).encode()
        leaves.append((place, hashlib.sha256(b"\x00" + place + payload).digest()))
    return subtree(sorted(leaves), 0)


def charter_of(world: World) -> Charter:
    """Offer every change of every feed, in the order of their numbers."""
    charter = Charter(world.genesis)
    changes = [
        entry.record
        for server in world.servers
        for entry in server.entries
        if entry.record.kind in ("roster.change", "root.rotate") and _signed(world, entry.record)
    ]
    for change in sorted(changes, key=lambda one: one.body["number"]):
        try:
            charter.offer(change)
        except (InputError, RejectedError):
            continue
    return charter


def reference(world: World) -> tuple[DictState, set[tuple[str, int]]]:
    """Return the state, and (author, index) of every record that has effect."""
    charter = charter_of(world)
    state = DictState()
    state.put("mesh", "genesis", world.genesis.value())
    state.put("roster", "head", {"number": charter.number, "hash": charter.head})
    for server_id, certificate in charter.servers().items():
        state.put("roster", server_id, certificate.value())
    for one in charter.chain.generations:
        state.put("root", str(one.generation), _root_value(one))
    items = [item for server in world.servers for item in _items(world, charter, server)]
    items.sort(key=lambda item: item[:4])
    effective = set()
    for settled_ms, hlc, author, index, record, number in items:
        before = dict(state.objects)
        try:
            removal = charter.removal(author)
            if removal is not None and index >= removal.size:
                raise RejectedError("revoked")
            time_ms = hlc >> 16 if settled_ms == FOREVER_MS else settled_ms
            _apply(
                world, charter, state, hlc, author, record, number, _roots(charter, number, time_ms)
            )
            state.put("id", record.id, [author.removeprefix("server-"), index])
            effective.add((author, index))
        except (InputError, RejectedError):
            state.objects = before
    return state, effective


def _items(  # noqa: C901 (the page read from top to bottom)
    world: World, charter: Charter, server: Server
) -> list[tuple[Any, ...]]:
    """Return (settled, hlc, author, index, record, roster) of a feed's records."""
    items: list[list[Any]] = []
    number = newest_hlc = attested = settled_ms = 0
    for index, entry in enumerate(server.entries):
        record = entry.record
        own = server_id_of(record.actor) == server.id
        if not _signed(world, record):
            continue
        if record.kind == "feed.roster":
            if not own:
                continue
            if record.body["number"] > charter.number:
                break
            if record.body["number"] > number:
                wanted = charter.hash_at(record.body["number"])
                number = record.body["number"] if wanted == record.body["hash"] else number
        elif record.kind == "feed.attest":
            size = record.body["size"]
            time_ms = _attested(world, charter, server, record, number) if own else None
            removal = charter.removal(server.id)
            if removal is not None and index >= removal.size:
                continue
            if time_ms is None or not attested < size <= index:
                continue
            attested, settled_ms = size, max(settled_ms, time_ms)
            for item in items:
                if item[3] < size and item[0] == FOREVER_MS:
                    item[0] = settled_ms
        elif (
            record.kind not in ("roster.change", "root.genesis", "root.rotate")
            and entry.hlc > newest_hlc
        ):
            newest_hlc = entry.hlc
            items.append([FOREVER_MS, entry.hlc, server.id, index, record, number])
    return [tuple(item) for item in items]


def _attested(
    world: World, charter: Charter, server: Server, record: Record, number: int
) -> int | None:
    roster = charter.at(number)
    size, root = record.body["size"], world.root_at(server.id, record.body["size"])
    if roster.server(server.id) is None or root is None:
        return None
    if b64u_encode(root) != record.body["root"]:
        return None
    root_text = base64.b64encode(root).decode()
    text = f"seipd/{world.mesh_id}/{server.id}/1\n{size}\n{root_text}\n"
    times = {}
    for one in map(b64u_decode, record.body["signatures"]):
        witness, time = f"server-{one[:8].hex()}", int.from_bytes(one[8:16], "big")
        certificate = roster.server(witness)
        if witness not in roster.witnesses or certificate is None:
            continue
        if verify(certificate.key, cosignature_input(text, time), one[16:]):
            times[witness] = time
    if len(times) <= len(roster.witnesses) // 2:
        return None
    return int(sorted(times.values())[(len(times) - 1) // 2]) * 1000


def _apply(
    world: World,
    charter: Charter,
    state: DictState,
    hlc: int,
    author: str,
    record: Record,
    number: int,
    root_keys: frozenset[bytes],
) -> None:
    certificate = charter.at(number).server(author)
    if certificate is None or hlc >> 16 > record.not_after:
        raise RejectedError("no authority")
    if record.module != "platform" or record.kind not in APPLIERS or state.get("id", record.id):
        raise RejectedError("no effect")
    context = FoldContext(
        state=state,
        record=record,
        hlc=hlc,
        author=certificate,
        roster=charter.at(number),
        root_keys=root_keys,
        mesh_id=world.mesh_id,
    )
    APPLIERS[record.kind](context, record.body)


def _signed(world: World, record: Record) -> bool:
    return verify(record.actor, record.signed_bytes(world.mesh_id), record.actor_sig)


def _root_value(one: Generation) -> dict[str, Any]:
    value = {
        "public_key": b64u_encode(one.public_key),
        "number": one.number,
        "activated_ms": one.activated_ms,
        "expires_ms": one.expires_ms,
    }
    return value if one.closes_ms is None else {**value, "closes_ms": one.closes_ms}


def _roots(charter: Charter, number: int, time_ms: int) -> frozenset[bytes]:
    """Return the keys that are the root at a roster and a time, each on its own."""
    return frozenset(
        one.public_key
        for one in charter.chain.generations
        if one.number <= number and (one.closes_ms is None or time_ms <= one.closes_ms)
    )
