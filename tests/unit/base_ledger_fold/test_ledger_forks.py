"""A server tells two stories: what the ledgers of the others make of it, on real disks."""

from __future__ import annotations

import asyncio

import pytest

from services.base.ledger.copies import FeedLog, open_feed
from services.base.ledger.equivocation import EQUIVOCATION_KIND, proof_from_body
from services.base.ledger.service import LedgerService, LedgerSettings
from services.kernel.errors import SeipdError
from tests.fakes.world import APPLIERS, START_MS, Server, World

START_S = START_MS // 1000


class StillClock:
    """A minute after the beginning, always."""

    def now_ms(self) -> int:
        return START_MS + 60_000

    def monotonic_s(self) -> float:
        return 1.0


class Story:
    """One branch of a liar's feed, on a disk of its own."""

    def __init__(self, world: World, liar: Server, folder) -> None:
        folder.mkdir(mode=0o700)
        self.liar = liar
        certificate = world.charter.server(liar.id)
        self.log: FeedLog = open_feed(folder, world.mesh_id, certificate, liar.id, liar.key)

    def tell(self, entries) -> None:
        self.log.commit([entry.encode() for entry in entries])

    async def hand_to(self, ledger: LedgerService) -> None:
        head = ledger.feeds().get(self.liar.id)
        have = head.size if head is not None else 0
        entries = self.log.read(have, self.log.size)
        await ledger.ingest(self.liar.id, 1, have, entries, self.log.checkpoint)


class Scene:
    """Two honest servers, a liar with two stories, and what is common to both of them."""

    def __init__(self, tmp_path) -> None:
        self.world = World(3)
        self.fatal: list[BaseException] = []
        self.honest = [self.world.servers[0], self.world.servers[2]]
        self.liar = self.world.servers[1]
        self.ledgers = [self._ledger(server, tmp_path / server.id) for server in self.honest]
        self.stories = [Story(self.world, self.liar, tmp_path / f"story {n}") for n in (0, 1)]

    def _ledger(self, server: Server, folder) -> LedgerService:
        folder.mkdir(mode=0o700)
        changes = [one.record for one in self.world.servers[0].entries]
        roster = [one for one in changes if one.kind == "roster.change"]
        return LedgerService(
            folder=folder,
            signing_key=server.key,
            charter_records=[self.world.genesis, *roster],
            appliers=APPLIERS,
            clock=StillClock(),
            on_fatal=self.fatal.append,
            settings=LedgerSettings(attest_interval_s=3600),
        )

    async def __aenter__(self) -> Scene:
        for ledger in self.ledgers:
            await ledger.start()
        first = self.ledgers[0]
        for entry in self.world.servers[0].entries:
            if entry.record.kind in {"tree.create", "roster.change"}:
                await first.submit([entry.record])
        await first._attestor.settle(first.log(first.server_id))
        await self.share(*self.ledgers)
        return self

    async def __aexit__(self, *_: object) -> None:
        for ledger in self.ledgers:
            await ledger.stop()

    async def share(self, source: LedgerService, target: LedgerService) -> None:
        """Copy one honest server's own feed to the other."""
        name = source.server_id
        have = target.feeds()[name].size if name in target.feeds() else 0
        log = source.log(name)
        if have < log.size:
            await target.ingest(name, 1, have, log.read(have, log.size), log.checkpoint)

    async def agree(self) -> None:
        """Copy until both have everything that the other wrote."""
        first, second = self.ledgers
        for _ in range(4):
            await self.share(first, second)
            await self.share(second, first)
            async with asyncio.timeout(60):
                while first._upkeep.is_behind or second._upkeep.is_behind:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)

    def common(self, count: int) -> None:
        """Begin both stories alike."""
        self.liar.hlc = (START_MS + 30_000) << 16
        for number in range(count):
            self.world.invite(self.liar, f"common {number}")
        for story in self.stories:
            story.tell(self.liar.entries)

    def tell_apart(self, *counts: int) -> None:
        """Go on differently in each story."""
        for story, count in zip(self.stories, counts, strict=True):
            held = len(self.liar.entries)
            for number in range(count):
                self.world.invite(self.liar, f"{counts} {number}")
            if count:
                story.tell(self.liar.entries[held:])
            del self.liar.entries[held:]


def invites(ledger: LedgerService) -> int:
    return sum(1 for _ in ledger.state.scan("invite"))


@pytest.mark.parametrize("counts", [(2, 2), (4, 1), (9, 3)])
async def test_led_05_whoever_holds_more_proves_the_lie_and_all_hold_the_liar_untrusted(
    tmp_path, counts
) -> None:
    async with Scene(tmp_path) as scene:
        first, second = scene.ledgers
        scene.common(3)
        scene.tell_apart(*counts)
        for story, ledger in zip(scene.stories, scene.ledgers, strict=True):
            await story.hand_to(ledger)
        assert [invites(ledger) for ledger in scene.ledgers] == [3 + count for count in counts]
        assert await first.contradict(scene.liar.id, 1, scene.stories[1].log.checkpoint)
        await scene.agree()
        assert [invites(ledger) for ledger in scene.ledgers] == [0, 0]
        assert first.state.root() == second.state.root()
        for ledger in scene.ledgers:
            assert ledger.state.get("trust", scene.liar.id)["state"] == "untrusted"
        assert scene.fatal == []


async def test_the_records_that_prove_it_verify_offline(tmp_path) -> None:
    async with Scene(tmp_path) as scene:
        first, _ = scene.ledgers
        scene.common(3)
        scene.tell_apart(2, 1)
        await scene.stories[0].hand_to(first)
        await first.contradict(scene.liar.id, 1, scene.stories[1].log.checkpoint)
        records = [
            item.record
            for item in first.fold.items_of([first.state.get("trust", scene.liar.id)["record"]])
        ]
        (proof,) = [proof_from_body(one.body) for one in records if one.kind == EQUIVOCATION_KIND]
        found = proof.verify()
        assert (found.server_id, found.size) == (scene.liar.id, scene.stories[1].log.size)


async def test_what_the_witness_saw_counts_on_both_and_the_wrong_copy_is_fetched_anew(
    tmp_path,
) -> None:
    async with Scene(tmp_path) as scene:
        first, second = scene.ledgers
        scene.common(2)
        held = len(scene.liar.entries)
        scene.world.invite(scene.liar, "seen by the witness")
        scene.world.attest(scene.liar, held + 1, START_S + 70)
        scene.stories[0].tell(scene.liar.entries[held:])
        del scene.liar.entries[held:]
        scene.world.invite(scene.liar, "for the other alone")
        scene.stories[1].tell(scene.liar.entries[held:])
        for story, ledger in zip(scene.stories, scene.ledgers, strict=True):
            await story.hand_to(ledger)
        assert await first.contradict(scene.liar.id, 1, scene.stories[1].log.checkpoint)
        await scene.agree()
        assert second.feeds().get(scene.liar.id) is None
        await scene.stories[0].hand_to(second)
        assert first.state.root() == second.state.root()
        assert [invites(ledger) for ledger in scene.ledgers] == [3, 3]
        heads = [ledger.feeds()[scene.liar.id] for ledger in scene.ledgers]
        assert heads[0] == heads[1]
        assert heads[0].size == held + 1
        assert len(list(tmp_path.glob(f"*/feeds/{scene.liar.id}.fork-1"))) == 1


async def test_one_story_at_another_length_is_no_lie_and_junk_no_evidence(tmp_path) -> None:
    async with Scene(tmp_path) as scene:
        first, _ = scene.ledgers
        scene.common(2)
        scene.tell_apart(2, 0)
        await scene.stories[0].hand_to(first)
        older = scene.stories[1].log.checkpoint
        assert not await first.contradict(scene.liar.id, 1, older)
        for junk in (b"", b"junk", older[:-5] + b"AAAA\n", older + b"x" * 2000):
            with pytest.raises(SeipdError):
                await first.contradict(scene.liar.id, 1, junk)
        assert first.state.get("trust", scene.liar.id) is None
        size = first.log(first.server_id).size
        assert await first.contradict(scene.liar.id, 2, older) is False
        assert first.log(first.server_id).size == size


async def test_the_lie_is_remembered_over_a_restart(tmp_path) -> None:
    async with Scene(tmp_path) as scene:
        first, _ = scene.ledgers
        scene.common(2)
        scene.tell_apart(3, 1)
        await scene.stories[0].hand_to(first)
        await first.contradict(scene.liar.id, 1, scene.stories[1].log.checkpoint)
        root = first.state.root()
        for forget_state_file in (False, True):
            await first.stop()
            if forget_state_file:
                next(tmp_path.glob(f"{first.server_id}/state")).unlink()
            await first.start()
            assert first.state.root() == root
            assert invites(first) == 0
            assert scene.liar.id not in first.feeds() or not first.feeds()[scene.liar.id].size
