"""The queue on disk: one holder, one live job a key, bounds, and disks that refuse."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import TYPE_CHECKING

import pytest

from services.base.jobs import transitions
from services.base.jobs.model import Job, JobLimits, JobState, QueueFullError, StaleLeaseError
from services.base.jobs.store import JobStore
from services.base.storage.files import UnsafeFileError
from services.kernel.errors import ConflictError, CorruptError, StorageError

if TYPE_CHECKING:
    from pathlib import Path


def job(number: int, *, key: str | None = None, run_at_ms: int = 0) -> Job:
    return Job(
        id=f"job-{number:04}",
        kind="mail/1",
        payload=b"{}",
        key=key,
        state=JobState.READY,
        attempt=0,
        max_attempts=3,
        run_at_ms=run_at_ms,
        lease_until_ms=0,
        token="",
        created_ms=number,
        changed_ms=number,
        error_code="",
        error="",
        progress=b"{}",
        result=b"{}",
    )


async def opened(path: Path, **limits: int) -> JobStore:
    store = JobStore(path, JobLimits(**limits))
    await store.open()
    return store


async def claim(store: JobStore, token: str, now_ms: int = 10) -> Job | None:
    return await store.claim(token=token, now_ms=now_ms, lease_ms=lambda _: 100, busy=())


class TestClaims:
    async def test_job_08_two_holders_of_one_file_never_both_finish(self, tmp_path: Path) -> None:
        """One pauses beyond its lease; another, with a connection of its own, takes over."""
        one, other = await opened(tmp_path / "jobs.db"), await opened(tmp_path / "jobs.db")
        await one.add(job(1))
        first = await claim(one, "first")
        assert first is not None
        taken = await other.reclaim(
            lost=lambda held: transitions.is_lost(held, 500),
            change=lambda held: transitions.reclaim(held, why="lost", wait_ms=0, now_ms=500),
        )
        assert [held.id for held in taken] == [first.id]
        second = await claim(other, "second", 500)
        assert second is not None
        with pytest.raises(StaleLeaseError):
            await one.change(
                first.id,
                lambda held: transitions.finish(
                    held, token="first", result=b'{"by":1}', now_ms=501
                ),
            )
        done = await other.change(
            first.id,
            lambda held: transitions.finish(held, token="second", result=b'{"by":2}', now_ms=502),
        )
        assert (await one.get(first.id)).result == done.result == b'{"by":2}'
        await one.close()
        await other.close()

    async def test_the_one_that_is_due_longest_comes_first(self, tmp_path: Path) -> None:
        store = await opened(tmp_path / "jobs.db")
        for number, run_at_ms in ((1, 9), (2, 3), (3, 11)):
            await store.add(job(number, run_at_ms=run_at_ms))
        claimed = [await claim(store, "a"), await claim(store, "b"), await claim(store, "c")]
        assert [one and one.id for one in claimed] == ["job-0002", "job-0001", None]
        assert await store.next_ms(()) == 11
        await store.close()

    async def test_what_a_clock_of_the_future_wrote_does_not_wait_for_years(
        self, tmp_path: Path
    ) -> None:
        store = await opened(tmp_path / "jobs.db")
        year_ms = 366 * 86_400_000
        await store.add(job(1, run_at_ms=year_ms))
        assert await claim(store, "early", 10) is None
        await store.change(
            "job-0001",
            lambda one: dataclasses.replace(one, run_at_ms=2 * year_ms, changed_ms=year_ms),
        )
        claimed = await claim(store, "now", 10)
        assert claimed is not None
        assert claimed.lease_until_ms == 110
        await store.close()


class TestKeys:
    async def test_a_key_names_one_live_job(self, tmp_path: Path) -> None:
        store = await opened(tmp_path / "jobs.db")
        first = await store.add(job(1, key="a"))
        assert await store.add(job(2, key="a")) == first
        await claim(store, "t")
        assert (await store.add(job(3, key="a"))).id == first.id
        await store.change(
            first.id, lambda one: transitions.finish(one, token="t", result=b"{}", now_ms=11)
        )
        assert (await store.add(job(4, key="a"))).id == "job-0004"
        newest = await store.newest_of("mail/1", "a")
        assert newest is not None
        assert newest.id == "job-0004"
        await store.close()

    async def test_a_dead_letter_is_not_revived_beside_its_successor(self, tmp_path: Path) -> None:
        store = await opened(tmp_path / "jobs.db")
        await store.add(job(1, key="a"))
        await store.change(
            "job-0001", lambda one: transitions.bury(one, code="x", error="x", now_ms=5)
        )
        await store.add(job(2, key="a"))
        with pytest.raises(ConflictError, match="job-0002"):
            await store.change("job-0001", lambda one: transitions.revive(one, now_ms=6))
        await store.close()


class TestBounds:
    async def test_job_07_a_full_queue_takes_no_more_until_something_ends(
        self, tmp_path: Path
    ) -> None:
        store = await opened(tmp_path / "jobs.db", max_live=3)
        for number in range(3):
            await store.add(job(number))
        with pytest.raises(QueueFullError) as refused:
            await store.add(job(9))
        assert refused.value.code == "queue_full"
        claimed = await claim(store, "t")
        assert claimed is not None
        await store.change(
            claimed.id, lambda one: transitions.finish(one, token="t", result=b"{}", now_ms=1)
        )
        await store.add(job(9))
        await store.close()

    async def test_job_07_what_is_over_does_not_pile_up(self, tmp_path: Path) -> None:
        store = await opened(
            tmp_path / "jobs.db", max_over=2, keep_done_ms=1_000, keep_dead_ms=1_000
        )
        for number in range(4):
            await store.add(job(number))
            await store.change(
                f"job-{number:04}",
                lambda one, n=number: transitions.bury(one, code="x", error="x", now_ms=n),
            )
        assert await store.prune(100) == 2
        assert [one.id for one in await _all(store)] == ["job-0003", "job-0002"]
        assert await store.prune(10_000) == 2
        await store.close()

    async def test_job_07_a_disk_without_room_is_told_and_nothing_is_half_in(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "jobs.db"
        store = await opened(path)
        await store.add(job(0))
        database = store._db
        assert database is not None
        await database.execute("PRAGMA max_page_count = 1")

        async def fill() -> None:
            for number in range(1, 200):
                answered.append(await store.add(job(number, key="k" * 290 + str(number))))

        answered: list[Job] = []
        with pytest.raises(StorageError, match="full"):
            await fill()
        assert (await store.counts())["ready"] == 1 + len(answered)
        await database.execute("PRAGMA max_page_count = 100000")
        await store.add(job(900))
        await store.close()

    async def test_job_07_a_table_that_another_holds_is_waited_for_and_then_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.base.jobs.store.BUSY_TIMEOUT_MS", 50)
        path = tmp_path / "jobs.db"
        store = await opened(path)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            await store.add(job(1))
        holder.execute("COMMIT")
        await store.add(job(1))
        holder.close()
        await store.close()


class TestFiles:
    async def test_sto_18_a_torn_page_is_found_when_it_is_opened(self, tmp_path: Path) -> None:
        path = tmp_path / "jobs.db"
        store = await opened(path)
        for number in range(400):
            await store.add(job(number, key=f"{number}" * 20))
        await store.close()
        data = bytearray(path.read_bytes())
        data[4096 * 3 : 4096 * 4] = b"\xff" * 4096
        path.write_bytes(data)
        with pytest.raises(CorruptError):
            await opened(path)

    async def test_a_file_of_a_newer_version_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "jobs.db"
        newer = sqlite3.connect(path)
        newer.execute("PRAGMA user_version = 2")
        newer.close()
        before = path.read_bytes()
        with pytest.raises(ConflictError) as refused:
            await opened(path)
        assert refused.value.code == "schema_newer"
        assert path.read_bytes() == before

    async def test_a_link_is_not_followed_and_the_file_is_private(self, tmp_path: Path) -> None:
        (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UnsafeFileError):
            await opened(tmp_path / "link.db")
        assert not (tmp_path / "elsewhere").exists()
        store = await opened(tmp_path / "jobs.db")
        await store.add(job(1))
        modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.glob("jobs.db*")}
        assert set(modes.values()) == {0o600}, modes
        await store.close()


async def _all(store: JobStore) -> list[Job]:
    return await store.page(state=None, kind=None, before=None, limit=100)
