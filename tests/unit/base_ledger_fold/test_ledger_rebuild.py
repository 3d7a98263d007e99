"""A ledger that has to fold anew while it runs goes on taking writes, and loses none."""

from __future__ import annotations

import asyncio

from services.base.ledger.copies import open_feed
from services.base.ledger.service import LedgerService, LedgerSettings
from services.kernel.ids import b64u_encode
from tests.fakes.world import APPLIERS, START_MS, World

START_S = START_MS // 1000


class StillClock:
    """A minute after the beginning, always."""

    def now_ms(self) -> int:
        return START_MS + 60_000

    def monotonic_s(self) -> float:
        return 1.0


def ledger_of(world: World, folder, fatal: list[BaseException]) -> LedgerService:
    records = [world.genesis, *(one.record for one in world.servers[0].entries[:2])]
    return LedgerService(
        folder=folder,
        signing_key=world.servers[0].key,
        charter_records=records,
        appliers=APPLIERS,
        clock=StillClock(),
        on_fatal=fatal.append,
        settings=LedgerSettings(attest_interval_s=3600),
    )


async def found(ledger: LedgerService, world: World) -> None:
    """Append what the first server's feed begins with; its roster it names by itself."""
    for entry in world.servers[0].entries:
        if entry.record.kind != "feed.roster":
            await ledger.submit([entry.record])


class Peer:
    """The second server: writes its feed to a disk of its own and hands it over."""

    def __init__(self, world: World, folder) -> None:
        self.server = world.servers[1]
        self.server.hlc = (START_MS + 61_000) << 16
        certificate = world.charter.server(self.server.id)
        self.log = open_feed(folder, world.mesh_id, certificate, self.server.id, self.server.key)

    async def hand_over(self, ledger: LedgerService) -> None:
        have = self.log.size
        self.log.commit([entry.encode() for entry in self.server.entries[have:]])
        entries = self.log.read(have, self.log.size)
        await ledger.ingest(self.server.id, 1, have, entries, self.log.checkpoint)


def customer(world: World, number: int):
    body = {
        "node": f"00000000-0000-4000-8000-0000000003{number:02x}",
        "kind": "customer",
        "parent": world.root_node,
        "name": f"customer-{number}",
    }
    return world.signed(world.servers[0].key, "tree.create", body)


def folders(tmp_path):
    made = [tmp_path / name for name in ("ledger", "peer")]
    for folder in made:
        folder.mkdir(mode=0o700)
    return made


async def test_an_attest_from_before_the_state_file_is_folded_in_while_writes_go_on(
    tmp_path,
) -> None:
    world, fatal = World(2), []
    own, other = folders(tmp_path)
    peer = Peer(world, other)
    ledger = ledger_of(world, own, fatal)
    await ledger.start()
    await found(ledger, world)
    await ledger._attestor.settle(ledger.log(ledger.server_id))
    await ledger.stop()

    ledger = ledger_of(world, own, fatal)
    await ledger.start()
    first_fold = ledger.fold
    world.invite(peer.server, "early")
    await peer.hand_over(ledger)
    assert sum(1 for _ in ledger.state.scan("invite")) == 1
    world.attest(peer.server, len(peer.server.entries), START_S + 30)
    writes = [asyncio.ensure_future(ledger.submit([customer(world, n)])) for n in range(20)]
    await asyncio.sleep(0)
    await peer.hand_over(ledger)
    receipts = [await one for one in writes]
    async with asyncio.timeout(60):
        while ledger.fold is first_fold:
            await asyncio.sleep(0.02)
    receipts.append(await ledger.submit([customer(world, 20)]))
    assert len({one[0].index for one in receipts}) == 21
    assert fatal == []
    root = ledger.state.root()
    # Its witness saw it before there was the customer.
    assert sum(1 for _ in ledger.state.scan("invite")) == 0
    assert sum(1 for _ in ledger.state.scan("tree")) == 2 + 21
    await ledger.stop()

    (own / "state").unlink()
    again = ledger_of(world, own, fatal)
    await again.start()
    assert again.state.root() == root
    assert again.feeds()[peer.server.id].size == len(peer.server.entries)
    await again.stop()


async def test_feeds_of_servers_that_only_the_feed_names_are_folded_at_start(tmp_path) -> None:
    world, fatal = World(2), []
    own, other = folders(tmp_path)
    peer = Peer(world, other)
    ledger = ledger_of(world, own, fatal)
    await ledger.start()
    await found(ledger, world)
    world.invite(peer.server, "x")
    await peer.hand_over(ledger)
    root = ledger.state.root()
    await ledger.stop()
    (own / "state").unlink()
    ledger = ledger_of(world, own, fatal)
    ledger._holding.charter_records = ledger._holding.charter_records[:2]
    await ledger.start()
    assert ledger.state.root() == root
    world.invite(peer.server, "y")
    await peer.hand_over(ledger)
    assert sum(1 for _ in ledger.state.scan("invite")) == 2
    assert (
        b64u_encode(peer.server.key.public_key)
        == (ledger.state.get("roster", peer.server.id)["key"])
    )
    await ledger.stop()


async def test_a_removed_server_goes_at_once_though_the_fold_is_out_of_order(tmp_path) -> None:
    world, fatal = World(2), []
    own, other = folders(tmp_path)
    peer = Peer(world, other)
    ledger = ledger_of(world, own, fatal)
    gone: list[str] = []
    ledger.subscribe(["roster"], lambda changes: gone.extend(c.key for c in changes if not c.new))
    await ledger.start()
    await found(ledger, world)
    await peer.hand_over(ledger)
    ledger._upkeep.fall_behind()
    change = world.change(world.servers[0], removed=[world.removal(world.servers[1], 0)])
    world.write(peer.server, change)
    await peer.hand_over(ledger)
    assert gone == [peer.server.id]
    async with asyncio.timeout(60):
        while ledger._upkeep.is_behind:
            await asyncio.sleep(0.02)
    assert gone == [peer.server.id]
    assert ledger.charter.server(peer.server.id) is None
    assert fatal == []
    await ledger.stop()
