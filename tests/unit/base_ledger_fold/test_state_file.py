"""A newcomer begins with a state that the witnesses agree on, and comes to the same as everyone."""

from __future__ import annotations

import asyncio

import pytest

from services.base.crypto.signatures import verify
from services.base.ledger.roster import Charter
from services.base.ledger.service import LedgerService, LedgerSettings
from services.base.ledger.statefile import adopt_state
from services.base.storage.files import write_atomic
from services.kernel.errors import CorruptError, UnauthenticatedError, UnavailableError
from tests.fakes.world import APPLIERS, START_MS, Server, World

START_S = START_MS // 1000
SETTINGS = LedgerSettings(attest_interval_s=3600, tick_interval_ms=10_000)


class StillClock:
    """Two minutes after the beginning, always."""

    def now_ms(self) -> int:
        return START_MS + 120_000

    def monotonic_s(self) -> float:
        return 1.0


class Scene:
    """A ledger that has been at work, and what it takes to make another."""

    def __init__(self, tmp_path) -> None:
        self.tmp_path = tmp_path
        self.world = World(2)
        self.fatal: list[BaseException] = []
        first = self.world.servers[0]
        self.roster = [one.record for one in first.entries if one.record.kind == "roster.change"]
        self.old = self.ledger(first, self.world.genesis, *self.roster)

    def ledger(self, server: Server, *charter) -> LedgerService:
        folder = self.tmp_path / server.id
        folder.mkdir(mode=0o700, exist_ok=True)
        return LedgerService(
            folder=folder,
            signing_key=server.key,
            charter_records=charter,
            appliers=APPLIERS,
            clock=StillClock(),
            on_fatal=self.fatal.append,
            settings=SETTINGS,
        )

    async def at_work(self) -> None:
        """Write, have most of it settled, write a little more."""
        await self.old.start()
        first = self.world.servers[0]
        for entry in first.entries:
            if entry.record.kind != "feed.roster":
                await self.old.submit([entry.record])
        for number in range(20):
            await self.old.submit([self.customer(number)])
        await self.old._attestor.settle(self.old.log(self.old.server_id))
        self.old._clock.now_ms = lambda: START_MS + 150_000
        for number in range(20, 25):
            await self.old.submit([self.customer(number)])

    def customer(self, number: int):
        body = {
            "node": f"00000000-0000-4000-8000-0000000004{number:02x}",
            "kind": "customer",
            "parent": self.world.root_node,
            "name": f"customer-{number}",
        }
        return self.world.signed(self.world.servers[0].key, "tree.create", body)

    def charter(self) -> Charter:
        charter = Charter(self.world.genesis)
        for record in self.roster:
            charter.offer(record)
        return charter

    async def adopt(self, data: bytes, words) -> bytes:
        newcomer = self.world.servers[1]
        return await asyncio.to_thread(
            adopt_state,
            data,
            charter=self.charter(),
            words=words,
            source_key=self.world.servers[0].key.public_key,
            sign=newcomer.key.sign,
            verify=verify,
        )


@pytest.fixture
async def scene(tmp_path):
    scene = Scene(tmp_path)
    await scene.at_work()
    yield scene
    await scene.old.stop()
    assert scene.fatal == []


async def test_a_newcomer_begins_with_the_state_and_ends_with_the_same_hash(scene) -> None:
    word = await scene.old.state_word()
    before = scene.old.state.root()
    data = await scene.old.state_file(word)
    assert scene.old.state.root() == before
    adopted = await scene.adopt(data, {scene.old.server_id: word})
    newcomer = scene.world.servers[1]
    new = scene.ledger(newcomer, scene.world.genesis, *scene.roster)
    write_atomic(scene.tmp_path / newcomer.id / "state", adopted)
    await new.start()
    try:
        assert len(list(new.state.scan("tree"))) == 2 + 20
        assert new.feeds().get(scene.old.server_id) is None
        log = scene.old.log(scene.old.server_id)
        half = log.size // 2
        entries = log.read(0, log.size)
        proof = log.consistency_proof(half, log.size)
        await new.ingest(log.server_id, 1, 0, entries[:half], log.checkpoint, proof=proof)
        assert len(list(new.state.scan("tree"))) == 2 + 20
        await new.ingest(log.server_id, 1, half, entries[half:], log.checkpoint)
        own = new.log(new.server_id)
        await scene.old.ingest(new.server_id, 1, 0, own.read(0, own.size), own.checkpoint)
        assert len(list(new.state.scan("tree"))) == 2 + 25
        assert new.state.root() == scene.old.state.root()
    finally:
        await new.stop()
    again = scene.ledger(newcomer, scene.world.genesis, *scene.roster)
    (scene.tmp_path / newcomer.id / "state").unlink()
    await again.start()
    assert again.state.root() == scene.old.state.root()
    await again.stop()


async def test_a_state_that_too_few_agree_on_or_another_one_is_refused(scene) -> None:
    word = await scene.old.state_word()
    data = await scene.old.state_file(word)
    with pytest.raises(UnauthenticatedError) as caught:
        await scene.adopt(data, {})
    assert caught.value.code == "no_agreed_state"
    with pytest.raises(UnauthenticatedError):
        await scene.adopt(data, {scene.world.servers[1].id: word})
    other = type(word)(**{**_fields(word), "root": b"x" * 32})
    with pytest.raises(UnauthenticatedError, match="not the state"):
        await scene.adopt(data, {scene.old.server_id: other})


@pytest.mark.parametrize("at", [5, 400, -1])
async def test_a_damaged_state_file_is_refused(scene, at) -> None:
    word = await scene.old.state_word()
    data = bytearray(await scene.old.state_file(word))
    data[at] ^= 1
    with pytest.raises(CorruptError):
        await scene.adopt(bytes(data), {scene.old.server_id: word})


async def test_a_tick_of_long_ago_is_not_handed_out(scene) -> None:
    word = await scene.old.state_word()
    other = type(word)(**{**_fields(word), "feeds_hash": b"x" * 32})
    with pytest.raises(UnavailableError) as caught:
        await scene.old.state_file(other)
    assert caught.value.code == "no_agreed_state"


async def test_a_witness_gives_its_word_once_a_tick(scene) -> None:
    words = []
    scene.old.on_state_word(words.append)
    await scene.old._teller.give_word()
    await scene.old._teller.give_word()
    assert [word.time_ms % 10_000 for word in words] == [0]


async def test_a_witness_tells_news_between_two_ticks_and_the_tick_all_the_same(scene) -> None:
    """START is a tick; what settles 151 s after it is told within seconds."""
    words, now = [], {"ms": START_MS + 151_000}
    scene.old.on_state_word(words.append)
    scene.old._clock.now_ms = lambda: now["ms"]
    await scene.old._attestor.settle(scene.old.log(scene.old.server_id))
    for _ in range(20):
        await scene.old._teller.give_word()
        now["ms"] += 1_000
    told = [(word.time_ms - START_MS) // 1000 for word in words]
    assert sorted(told) == [140, 150, 152, 154, 156, 160]
    root = {(word.time_ms - START_MS) // 1000: word.root for word in words}
    assert root[152] == root[154] == root[160] != root[150]
    # Once, whatever the clock does.
    now["ms"] -= 15_000
    await scene.old._teller.give_word()
    assert len(words) == len(told)


def _fields(word) -> dict:
    return {name: getattr(word, name) for name in word.__struct_fields__}
