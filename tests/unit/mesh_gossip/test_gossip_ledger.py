"""Gossip under the ledger that it serves: real feeds, checkpoints and cosignatures on loopback."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from services.authority.tree.view import APPLIERS
from services.base.crypto.agreement import generate_x25519
from services.base.ledger.author import Author
from services.base.ledger.roster import Charter
from services.base.ledger.service import LedgerService, LedgerSettings
from services.kernel.addr import default_ranges, pick_backbone
from services.kernel.certificates import ServerCertificate
from services.kernel.errors import UnreachableError
from services.kernel.ids import b64u_encode, mesh_id_of, new_uuid, node_id_of
from services.mesh.gossip.addresses import Advertisement
from services.mesh.gossip.service import GossipService
from services.mesh.gossip.settings import GossipSettings
from services.runtime.clock import SystemClock
from tests.unit.mesh_gossip.gossip_kit import key_of

ROOT = key_of("root")
MESH = mesh_id_of(ROOT.public_key)
NAMES = ("ann", "bob", "cid")
CLOCK = SystemClock()
PLACE = Advertisement(host="127.0.0.1", http_port=9100, wireguard_port=51940, region="eu-west")


class NoHttps:
    """What is small has to come by gossip alone."""

    async def catch_up(self, places, server_id, epoch):
        raise UnreachableError("nobody there")


def charter_of(*names: str):
    """Return the genesis and the roster change that names these servers, all witnesses."""
    ranges = default_ranges()
    root = Author(key=ROOT, mesh_id=MESH, clock=CLOCK)
    now_ms = CLOCK.now_ms()
    genesis = root.record(
        "root.genesis",
        {
            "generation": 1,
            "public_key": b64u_encode(ROOT.public_key),
            "domain": "mesh.example",
            "ranges": ranges.value(),
            "activated_ms": now_ms,
            "expires_ms": now_ms + 86_400_000,
            "version": 1,
        },
    )
    charter = Charter(genesis)
    certificates: list[ServerCertificate] = []
    for number, name in enumerate(names):
        taken = frozenset(one.backbone for one in certificates)
        key = key_of(name).public_key
        certificates.append(
            ServerCertificate(
                key=key,
                wireguard_key=generate_x25519()[1],
                tls_key_hash=bytes(32),
                region="eu-west",
                backbone=str(pick_backbone(key, ranges, taken)),
                slices=(str(ranges.slice_at(number)),),
                epoch=1,
            )
        )
    change = {
        "number": 1,
        "prev": charter.head,
        "servers": [one.value() for one in certificates],
        "removed": [],
        "witnesses": [one.server_id for one in certificates],
    }
    charter.offer(root.record("roster.change", change))
    return charter.records


@contextlib.asynccontextmanager
async def running(folder, charter, name, *, wait=False):
    ledger = LedgerService(
        folder=folder / name,
        signing_key=key_of(name),
        charter_records=charter,
        appliers=APPLIERS,
        clock=CLOCK,
        on_fatal=lambda error: pytest.fail(f"{name}: {error}"),
        settings=LedgerSettings(attest_interval_s=0.1),
    )
    gossip = GossipService(
        settings=GossipSettings(bind_address="127.0.0.1", port=0, interval_s=0.2),
        key=key_of(name),
        mesh_id=MESH,
        ledger=ledger,
        fetch=NoHttps(),
        clock=CLOCK,
        peers_file=folder / f"{name}.json",
    )
    gossip.announce(PLACE)
    ledger.on_cosign(gossip.send_cosign)
    if wait:
        ledger.wait_for_others()
    async with contextlib.AsyncExitStack() as stack:
        await ledger.start()
        stack.push_async_callback(ledger.stop)
        await gossip.start()
        stack.push_async_callback(gossip.stop)
        yield ledger, gossip


async def until(condition, *, at_most_s=60.0):
    async with asyncio.timeout(at_most_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_ledgers_agree_and_cosign_each_other_through_gossip(tmp_path):
    charter = charter_of(*NAMES)
    root = Author(key=ROOT, mesh_id=MESH, clock=CLOCK)
    top, first = node_id_of(ROOT.public_key), new_uuid(b"1" * 16)
    async with contextlib.AsyncExitStack() as stack:
        mesh = {
            name: await stack.enter_async_context(running(tmp_path, charter, name))
            for name in NAMES
        }
        seed = mesh["ann"][1].own_fact()
        for name in ("bob", "cid"):
            mesh[name][1].learn(seed)
        ledgers = [ledger for ledger, _ in mesh.values()]
        await ledgers[0].submit([root.record("tree.create", {"node": top, "kind": "root"})])
        await until(lambda: all(one.state.get("tree", top) for one in ledgers))
        customer = {"node": first, "kind": "customer", "parent": top, "name": "first"}
        author = Author(key=key_of("bob"), mesh_id=MESH, clock=CLOCK)
        await ledgers[1].submit([author.record("tree.create", customer)])
        await until(lambda: all(one.state.get("tree", first) for one in ledgers))

        def settled() -> bool:
            feeds = [one.fold.feeds.get(ledgers[1].server_id) for one in ledgers]
            return all(feed and not feed.unsettled for feed in feeds)

        await until(settled)
        await until(lambda: len({one.state.root() for one in ledgers}) == 1)
        assert len(ledgers[2].feeds()) == 3
