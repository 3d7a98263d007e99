"""What stops a server from appending to its own feed: another story, a twin, a restore."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from services.base.ledger.copies import FeedLog, open_feed
from services.base.ledger.ownfeed import CLONED, ENDED, FORKED, RESTORED
from services.base.ledger.service import LedgerService, LedgerSettings
from services.kernel.errors import UnavailableError, WireError
from services.kernel.hlc import Hlc
from services.kernel.ids import b64u_encode
from services.kernel.records import Entry
from services.kernel.service import HealthState
from tests.fakes.world import APPLIERS, START_MS, World

NOW_MS = START_MS + 60_000


class StillClock:
    """A minute after the beginning, always."""

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return 1.0


class Scene:
    """The first server's ledger, and a second disk with the same identity."""

    def __init__(self, tmp_path, *, restored: bool = False) -> None:
        self.world = World(2)
        self.own = self.world.servers[0]
        self.folder = tmp_path
        self.records = [self.world.genesis, *(one.record for one in self.own.entries[:2])]
        for name in ("ledger", "twin"):
            (tmp_path / name).mkdir(mode=0o700)
        self.remembered: list[int] = []
        self.ledger = self.ledger_of(restored=restored)

    def ledger_of(self, *, restored: bool = False) -> LedgerService:
        ledger = LedgerService(
            folder=self.folder / "ledger",
            signing_key=self.own.key,
            charter_records=self.records,
            appliers=APPLIERS,
            clock=StillClock(),
            on_fatal=lambda error: None,
            settings=LedgerSettings(attest_interval_s=3600),
            remember=self._remember,
        )
        if restored:
            ledger.wait_for_epoch()
        return ledger

    def _remember(self, records) -> None:
        self.records = list(records)
        self.remembered.append(len(records))

    async def __aenter__(self) -> Scene:
        restored, self.ledger._was_restored = self.ledger._was_restored, False
        await self.ledger.start()
        for entry in self.own.entries:
            if entry.record.kind != "feed.roster":
                await self.ledger.submit([entry.record])
        if restored:
            await self.again(restored=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ledger.stop()

    async def again(self, *, restored: bool = False) -> None:
        """Start the daemon again on the same disk."""
        await self.ledger.stop()
        self.ledger = self.ledger_of(restored=restored)
        await self.ledger.start()

    @property
    def held(self) -> FeedLog:
        return self.ledger.log(self.own.id)

    def twin(self, *names: str, at_ms: int, keep: int | None = None) -> FeedLog:
        """Return another disk of this server: what is held, and customers added to it since."""
        certificate = self.ledger.charter.server(self.own.id)
        log = open_feed(
            self.folder / "twin", self.world.mesh_id, certificate, self.own.id, self.own.key
        )
        log.commit(self.held.read(0, self.held.size if keep is None else keep))
        stamps = (Hlc((at_ms + step) << 16) for step in range(len(names)))
        entries = zip(stamps, names, strict=False)
        log.commit([Entry(hlc=hlc, record=self.customer(name)).encode() for hlc, name in entries])
        return log

    async def hear(self, log: FeedLog) -> None:
        """Others show what the twin signed."""
        start = self.held.size
        entries = log.read(start, log.size)
        await self.ledger.ingest(self.own.id, log.epoch, start, entries, log.checkpoint)

    def customer(self, name: str):
        body = {
            "node": f"00000000-0000-4000-8000-0000{name.encode().hex():0>8.8}",
            "kind": "customer",
            "parent": self.world.root_node,
            "name": name,
        }
        return self.world.signed(self.own.key, "tree.create", body)

    async def invite(self) -> str:
        invite_id = f"{len(self.invites()) + 1:032x}"
        body = {
            "invite": invite_id,
            "key": b64u_encode(self.own.key.public_key),
            "role": "endpoint",
            "customer": self.world.customer,
            "region": None,
            "name": None,
            "expires_ms": NOW_MS + 3_600_000,
            "uses": 1,
        }
        await self.ledger.submit([self.world.signed(self.own.key, "auth.invite", body)])
        return invite_id

    def invites(self) -> list[str]:
        return [key for _, key, _ in self.ledger.state.scan("invite")]

    def cancel(self, invite_id: str):
        return self.world.signed(self.own.key, "auth.cancel", {"invite": invite_id})

    def epoch_change(self, end=None):
        """Return the root's word that the own feed goes on in the next epoch."""
        charter = self.ledger.charter
        end = end or self.ledger.own_feed_end()
        known = charter.server(self.own.id)
        body = {
            "number": charter.number + 1,
            "prev": charter.head,
            "servers": [dataclasses.replace(known, epoch=known.epoch + 1).value()],
            "removed": [],
            "witnesses": [self.own.id],
            "ended": [end.value()],
        }
        return self.world.signed(self.world.root, "roster.change", body)

    async def refused(self, code: str) -> str:
        with pytest.raises(UnavailableError) as caught:
            await self.ledger.submit([self.customer("no")])
        assert caught.value.code == code
        return str(caught.value)


async def test_another_story_of_the_own_feed_stops_it_and_accuses_nobody(tmp_path):
    async with Scene(tmp_path) as scene:
        twin = scene.twin("aa", at_ms=NOW_MS - 5000)
        await scene.ledger.submit([scene.customer("bb")])
        size = scene.held.size
        assert twin.size == size
        assert await scene.ledger.contradict(scene.own.id, 1, twin.checkpoint)
        assert scene.ledger.health().state is HealthState.FAILED
        assert await scene.refused("read_only") == FORKED
        assert list(scene.ledger.state.scan("trust")) == []
        assert scene.held.size == size


async def test_entries_that_follow_another_story_are_not_taken_and_stop_it(tmp_path):
    async with Scene(tmp_path) as scene:
        twin = scene.twin("aa", "cc", at_ms=NOW_MS - 5000)
        await scene.ledger.submit([scene.customer("bb")])
        size = scene.held.size
        with pytest.raises(UnavailableError) as caught:
            await scene.hear(twin)
        assert caught.value.code == "own_feed_forked"
        assert await scene.refused("read_only") == FORKED
        assert scene.held.size == size


async def test_a_twin_that_writes_now_stops_it_and_what_it_wrote_is_kept(tmp_path):
    async with Scene(tmp_path) as scene:
        twin = scene.twin("aa", at_ms=NOW_MS + 1)
        await scene.hear(twin)
        assert await scene.refused("read_only") == CLONED
        assert scene.held.checkpoint == twin.checkpoint
        await scene.again()
        await scene.ledger.submit([scene.customer("bb")])


async def test_what_a_lost_disk_had_written_comes_back_and_writes_go_on(tmp_path):
    async with Scene(tmp_path) as scene:
        twin = scene.twin("aa", at_ms=NOW_MS - 5000)
        await scene.hear(twin)
        await scene.ledger.submit([scene.customer("bb")])
        assert scene.held.size == twin.size + 1


async def test_a_restored_server_appends_nothing_before_its_new_epoch(tmp_path):
    async with Scene(tmp_path, restored=True) as scene:
        end = scene.ledger.own_feed_end()
        assert (end.size, end.root) == (scene.held.size, scene.held.root)
        assert scene.ledger.health().state is HealthState.DEGRADED
        assert scene.ledger.health().detail == RESTORED
        early = asyncio.ensure_future(scene.ledger.submit([scene.customer("aa")]))
        await scene.ledger.learn_roster([scene.epoch_change()])
        await asyncio.sleep(0.05)
        assert scene.held.size == end.size
        await scene.ledger.go_on([])
        await early
        assert scene.held.epoch == scene.held.signed_epoch == 2
        kinds = [
            kind
            for data in scene.held.read(end.size, scene.held.size)
            for kind in (b"roster.change", b"feed.roster", b"tree.create")
            if b'"kind":"' + kind in data
        ]
        assert kinds == [b"roster.change", b"feed.roster", b"tree.create"]
        assert scene.remembered == [4]


async def test_pub_14_invitations_are_cancelled_before_anything_that_waited(tmp_path):
    async with Scene(tmp_path) as scene:
        invite_id = await scene.invite()
        await scene.again(restored=True)
        used = asyncio.ensure_future(scene.ledger.submit([scene.cancel(invite_id)]))
        await scene.ledger.learn_roster([scene.epoch_change()])
        await asyncio.sleep(0.05)
        await scene.ledger.go_on([[scene.cancel(invite_id)]])
        assert scene.invites() == []
        with pytest.raises(Exception, match="no such invitation"):
            await used


async def test_an_epoch_survives_a_restart_also_before_anything_is_written_in_it(tmp_path):
    async with Scene(tmp_path, restored=True) as scene:
        await scene.ledger.learn_roster([scene.epoch_change()])
        await scene.again(restored=True)
        assert (scene.held.epoch, scene.held.signed_epoch) == (2, 1)
        await scene.ledger.go_on([])
        root = scene.ledger.state.root()
        await scene.again()
        assert (scene.held.epoch, scene.held.signed_epoch) == (2, 2)
        assert scene.ledger.state.root() == root
        await scene.ledger.submit([scene.customer("aa")])


async def test_the_original_of_a_restored_server_stops_for_good(tmp_path):
    async with Scene(tmp_path) as scene:
        end = scene.ledger.own_feed_end()
        await scene.ledger.submit([scene.customer("aa")])
        await scene.ledger.learn_roster([scene.epoch_change(end)])
        assert await scene.refused("read_only") == ENDED
        await scene.again()
        assert await scene.refused("read_only") == ENDED
        assert list(scene.ledger.state.scan("trust")) == []


async def test_only_the_root_ends_an_epoch(tmp_path):
    async with Scene(tmp_path) as scene:
        change = scene.epoch_change()
        forged = dataclasses.replace(change, actor_sig=bytes(64))
        await scene.ledger.learn_roster([forged])
        await scene.ledger.learn_roster([scene.customer("aa")])
        assert scene.ledger.charter.server(scene.own.id).epoch == 1
        await scene.ledger.submit([scene.customer("bb")])


class Copied(Scene):
    """The same, where the second server is the one that is restored."""

    def __init__(self, tmp_path) -> None:
        super().__init__(tmp_path)
        self.peer = self.world.servers[1]
        self.peer.hlc = (NOW_MS + 1000) << 16
        self.disks: list[FeedLog] = []

    def disk(self, name: str) -> FeedLog:
        (self.folder / name).mkdir(mode=0o700)
        certificate = self.ledger.charter.server(self.peer.id)
        return open_feed(
            self.folder / name, self.world.mesh_id, certificate, self.peer.id, self.peer.key
        )

    def entry(self, number: int, *, by=None) -> bytes:
        self.peer.hlc += 1 << 16
        body = {
            "node": f"00000000-0000-4000-8000-0000000004{number:02x}",
            "kind": "customer",
            "parent": self.world.root_node,
            "name": f"p{number}",
        }
        record = self.world.signed(by or self.peer.key, "tree.create", body)
        return Entry(hlc=Hlc(self.peer.hlc), record=record).encode()

    async def hand_over(self, log: FeedLog) -> None:
        held = self.ledger.feeds().get(self.peer.id)
        start = held.size if held is not None else 0
        entries = log.read(start, log.size)
        await self.ledger.ingest(self.peer.id, log.epoch, start, entries, log.checkpoint)

    def peer_change(self, size: int, root: bytes):
        charter = self.ledger.charter
        known = charter.server(self.peer.id)
        return self.world.signed(
            self.world.root,
            "roster.change",
            {
                "number": charter.number + 1,
                "prev": charter.head,
                "servers": [dataclasses.replace(known, epoch=2).value()],
                "removed": [],
                "witnesses": [self.own.id],
                "ended": [{"server": self.peer.id, "size": size, "root": b64u_encode(root)}],
            },
        )


def feed_of(scene: Copied, name: str) -> FeedLog:
    log = scene.disk(name)
    log.commit([one.encode() for one in scene.peer.entries])
    return log


async def test_what_the_lost_disk_had_told_one_server_alone_is_put_aside_there(tmp_path):
    async with Copied(tmp_path) as scene:
        lost, restored = feed_of(scene, "lost"), feed_of(scene, "restored")
        common = lost.size
        lost.commit([scene.entry(1), scene.entry(2), scene.entry(7, by=scene.own.key)])
        await scene.hand_over(lost)
        assert scene.ledger.feeds()[scene.peer.id].size == common + 3
        change = scene.peer_change(common, restored.root)
        await scene.ledger.submit([change])
        async with asyncio.timeout(60):
            while scene.peer.id in scene.ledger.feeds():
                await asyncio.sleep(0.02)
        restored.begin_epoch(scene.world.mesh_id, scene.ledger.charter.server(scene.peer.id))
        restored.commit([scene.entry(3)])
        await scene.hand_over(restored)
        async with asyncio.timeout(60):
            while sum(1 for _ in scene.ledger.state.scan("tree")) < 4:
                await asyncio.sleep(0.02)
        names = {
            value["name"] for _, _, value in scene.ledger.state.scan("tree") if "name" in value
        }
        assert {"p3", "p7"} <= names  # what another key had signed is brought forward
        assert not {"p1", "p2"} & names
        assert list(scene.ledger.state.scan("trust")) == []
        with pytest.raises(WireError, match=r"ended with \d+ entries"):
            await scene.ledger.ingest(scene.peer.id, 2, common, [], lost.checkpoint)


async def test_the_new_epoch_is_learnt_from_the_feed_that_goes_on(tmp_path):
    async with Copied(tmp_path) as scene:
        log = feed_of(scene, "peer")
        await scene.hand_over(log)
        change = scene.peer_change(log.size, log.root)
        certificate = dataclasses.replace(scene.ledger.charter.server(scene.peer.id), epoch=2)
        log.begin_epoch(scene.world.mesh_id, certificate)
        scene.peer.hlc += 1 << 16
        log.commit([Entry(hlc=Hlc(scene.peer.hlc), record=change).encode(), scene.entry(4)])
        await scene.hand_over(log)
        assert scene.ledger.feeds()[scene.peer.id].epoch == 2
        assert scene.ledger.feeds()[scene.peer.id].size == log.size
        await scene.again()
        assert scene.ledger.feeds()[scene.peer.id].size == log.size
