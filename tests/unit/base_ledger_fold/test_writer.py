"""The writer of the own feed: what is answered when, while the disk takes its time or refuses."""

from __future__ import annotations

import asyncio
import threading

import pytest

from services.base.crypto.signatures import verify
from services.base.ledger.writer import Writer
from services.kernel.errors import StorageError, UnavailableError
from services.kernel.hlc import Hlc
from services.kernel.records import decode_entry
from tests.fakes.world import START_MS, World


class StillClock:
    def now_ms(self) -> int:
        return START_MS + 1000

    def monotonic_s(self) -> float:
        return 1.0


class SlowLog:
    """A log whose disk answers only when it is let."""

    def __init__(self, entries: int) -> None:
        self.size = entries
        self.commits: list[list[bytes]] = []
        self.broken = False
        self.disk = threading.Semaphore(0)
        self.writing = threading.Event()

    def commit(self, entries: list[bytes]) -> None:
        self.writing.set()
        self.disk.acquire()
        if self.broken:
            raise StorageError("no space left")
        self.size += len(entries)
        self.commits.append(entries)


class Bench:
    """A writer at work on a fold, over a slow log."""

    def __init__(self) -> None:
        self.world = World()
        self.server = self.world.servers[0]
        self.fold = self.world.folded()
        self.log = SlowLog(len(self.server.entries))
        self.fatal: list[BaseException] = []
        self.sizes_told: list[int] = []
        self.writer = Writer(
            server_id=self.server.id,
            fold=self.fold,
            log=self.log,
            clock=StillClock(),
            verify=verify,
            on_fatal=self.fatal.append,
            on_commit=lambda: self.sizes_told.append(self.log.size),
        )
        self.writer.observe(Hlc(self.server.hlc))

    def submit(self, number: int) -> asyncio.Task:
        node = f"00000000-0000-4000-8000-00000000{number:04x}"
        body = {
            "node": node,
            "kind": "customer",
            "parent": self.world.root_node,
            "name": f"c-{number}",
        }
        record = self.world.signed(self.server.key, "tree.create", body)
        return asyncio.create_task(self.writer.submit([record]))

    async def accepted(self, number: int) -> None:
        """Wait until a record has effect in memory."""
        node = f"00000000-0000-4000-8000-00000000{number:04x}"
        while self.fold.state.get("tree", node) is None:
            await asyncio.sleep(0.001)

    async def first_is_being_written(self) -> None:
        while not self.log.writing.is_set():
            await asyncio.sleep(0.001)


@pytest.fixture
async def bench():
    bench = Bench()
    running = asyncio.create_task(bench.writer.run())
    yield bench
    bench.log.disk.release(1000)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_next_batch_is_accepted_while_one_is_written_and_nobody_is_answered(bench):
    first = bench.submit(0x101)
    await bench.first_is_being_written()
    second = bench.submit(0x102)
    await bench.accepted(0x102)
    await asyncio.sleep(0.01)
    assert not first.done()
    assert not second.done()
    bench.log.disk.release()
    (receipt,) = await first
    assert receipt.index == bench.log.size - 1
    assert not second.done()
    bench.log.disk.release()
    (receipt,) = await second
    assert receipt.index == bench.log.size - 1
    names = [decode_entry(one).record.body["name"] for data in bench.log.commits for one in data]
    assert names == ["c-257", "c-258"]


async def test_what_was_accepted_meanwhile_goes_to_the_disk_with_one_sync(bench):
    waiting = [bench.submit(0x101)]
    await bench.first_is_being_written()
    for number in range(0x102, 0x106):
        waiting.append(bench.submit(number))
        await bench.accepted(number)
    bench.log.disk.release(2)
    receipts = [(await one)[0] for one in waiting]
    assert [len(data) for data in bench.log.commits] == [1, 4]
    assert [one.index for one in receipts] == list(range(bench.log.size - 5, bench.log.size))


async def test_quiet_waits_for_the_disk_and_holds_acceptance(bench):
    first = bench.submit(0x101)
    await bench.first_is_being_written()
    quiet = bench.writer.quiet()
    entering = asyncio.create_task(quiet.__aenter__())
    await asyncio.sleep(0.01)
    assert not entering.done()
    bench.log.disk.release()
    await entering
    assert bench.fold.feeds[bench.server.id].size == bench.log.size
    second = bench.submit(0x102)
    await asyncio.sleep(0.02)
    assert bench.fold.feeds[bench.server.id].size == bench.log.size
    await quiet.__aexit__(None, None, None)
    bench.log.disk.release()
    await asyncio.gather(first, second)


async def test_a_disk_that_refuses_fails_all_that_was_accepted_and_is_told_once(bench):
    first = bench.submit(0x101)
    await bench.first_is_being_written()
    second = bench.submit(0x102)
    await bench.accepted(0x102)
    bench.log.broken = True
    bench.log.disk.release(2)
    refusals = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(one) for one in refusals] == [StorageError, StorageError]
    assert len(bench.fatal) == 1
    assert bench.log.commits == []
    with pytest.raises(UnavailableError, match="the disk refused"):
        await bench.submit(0x103)
    async with bench.writer.quiet():
        assert bench.sizes_told == []


async def test_what_comes_while_the_fold_is_out_of_order_waits_and_is_accepted_after(bench):
    first = bench.submit(0x101)
    await bench.first_is_being_written()
    bench.writer.hold()
    second = bench.submit(0x102)
    bench.log.disk.release()
    await first
    await asyncio.sleep(0.02)
    assert not second.done()
    assert bench.writer.is_held
    bench.writer.in_order()
    bench.log.disk.release()
    (receipt,) = await second
    assert receipt.index == bench.log.size - 1


async def test_sto_12_nothing_is_accepted_while_the_disk_is_in_trouble(bench):
    told = ["read-only: 63 MiB free, 64 needed"]
    bench.writer._disk_trouble = lambda: told[0]
    with pytest.raises(UnavailableError, match="63 MiB free") as caught:
        await bench.submit(0x101)
    assert caught.value.code == "read_only"
    told[0] = ""
    accepted = bench.submit(0x102)
    bench.log.disk.release()
    assert (await accepted)[0].index == bench.log.size - 1
