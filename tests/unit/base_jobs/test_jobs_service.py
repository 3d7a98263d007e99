"""Jobs as they run: poison, unknown kinds, the daemon's end, and kill -9."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.base.jobs.attempt import Attempt, JobKind
from services.base.jobs.model import Backoff, HopelessError, JobLimits, JobState, TryLaterError
from services.base.jobs.service import JobsService
from services.kernel.errors import InputError, UnavailableError
from services.kernel.service import HealthState
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SOON = Backoff(first_s=0.01, max_s=0.02)


class Desk:
    """Makes services on one file and ends them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: list[JobsService] = []

    async def service(self, *kinds: JobKind, limits: JobLimits | None = None) -> JobsService:
        service = JobsService(
            path=self.path,
            clock=SystemClock(),
            rng=random.Random(1),  # noqa: S311 (jitter)
            limits=limits,
        )
        for kind in kinds:
            service.register(kind)
        self.open.append(service)
        await service.start()
        return service


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path / "jobs.db")
    yield made
    for service in made.open:
        await service.stop()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.005)


async def ended(service: JobsService, job_id: str, state: JobState) -> None:
    async def there() -> bool:
        return (await service.get(job_id)).state is state

    await until(there)


def kind(run: Callable[[Attempt], Any], name: str = "mail/1", **more: Any) -> JobKind:
    return JobKind(name=name, run=run, **{"timeout_s": 5.0, "backoff": SOON, **more})


class TestRuns:
    async def test_a_job_runs_once_and_its_result_stays(self, desk: Desk) -> None:
        runs: list[dict[str, Any]] = []

        async def run(attempt: Attempt) -> dict[str, Any]:
            runs.append(attempt.payload)
            return {"sent": 1}

        service = await desk.service(kind(run))
        job = await service.enqueue("mail/1", {"to": "a"}, key="a")
        await ended(service, job.id, JobState.DONE)
        assert runs == [{"to": "a"}]
        assert (await service.get(job.id)).result == b'{"sent":1}'

    async def test_the_next_attempt_knows_how_far_the_last_one_came(self, desk: Desk) -> None:
        seen: list[dict[str, Any]] = []

        async def run(attempt: Attempt) -> None:
            seen.append(attempt.progress)
            await attempt.note({"step": len(seen)})
            if len(seen) < 3:
                raise UnavailableError("not yet")

        service = await desk.service(kind(run))
        job = await service.enqueue("mail/1", {})
        await ended(service, job.id, JobState.DONE)
        assert seen == [{}, {"step": 1}, {"step": 2}]

    async def test_no_more_of_a_kind_run_at_once_than_may(self, desk: Desk) -> None:
        now, most, two = 0, 0, asyncio.Event()

        async def run(_: Attempt) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            if now == 2:
                two.set()
            await two.wait()
            await asyncio.sleep(0.02)
            now -= 1

        service = await desk.service(kind(run, parallel=2))
        jobs = [await service.enqueue("mail/1", {"n": n}) for n in range(6)]
        for job in jobs:
            await ended(service, job.id, JobState.DONE)
        assert most == 2

    async def test_an_answer_that_says_when_is_taken_at_its_word(self, desk: Desk) -> None:
        async def run(_: Attempt) -> None:
            raise TryLaterError("busy", after_s=3600, counted=False)

        service = await desk.service(kind(run))
        job = await service.enqueue("mail/1", {})

        async def waits() -> bool:
            return bool((await service.get(job.id)).error_code)

        await until(waits)
        held = await service.get(job.id)
        assert (held.state, held.attempt) == (JobState.READY, 0)
        assert held.run_at_ms - held.changed_ms == 3_600_000


class TestPoison:
    async def test_job_02_what_always_raises_is_a_dead_letter_and_the_others_go_on(
        self, desk: Desk
    ) -> None:
        async def run(attempt: Attempt) -> None:
            if attempt.payload.get("poison"):
                raise ValueError("unreadable")

        service = await desk.service(kind(run, max_attempts=3))
        bad = await service.enqueue("mail/1", {"poison": True})
        good = await service.enqueue("mail/1", {})
        await ended(service, good.id, JobState.DONE)
        await ended(service, bad.id, JobState.DEAD)
        dead = await service.get(bad.id)
        assert (dead.attempt, dead.error_code, dead.error) == (3, "crashed", "unreadable")
        assert [one.id for one in await service.page(state=JobState.DEAD)] == [bad.id]

    async def test_job_02_what_hangs_is_ended_in_its_time(self, desk: Desk) -> None:
        async def run(_: Attempt) -> None:
            await asyncio.Event().wait()

        service = await desk.service(kind(run, timeout_s=0.02, max_attempts=2))
        job = await service.enqueue("mail/1", {})
        await ended(service, job.id, JobState.DEAD)
        assert (await service.get(job.id)).error_code == "timeout"

    async def test_what_is_hopeless_is_tried_once(self, desk: Desk) -> None:
        async def run(_: Attempt) -> None:
            raise HopelessError("no such account")

        service = await desk.service(kind(run))
        job = await service.enqueue("mail/1", {})
        await ended(service, job.id, JobState.DEAD)
        assert (await service.get(job.id)).attempt == 1
        again = await service.retry(job.id)
        assert (again.state, again.attempt) == (JobState.READY, 0)

    @pytest.mark.parametrize("how", ["os.kill(os.getpid(), 9)", "spin()"])
    def test_job_02_what_takes_the_process_along_is_a_dead_letter_in_the_end(
        self, tmp_path: Path, how: str
    ) -> None:
        """It dies, or spins until a watchdog kills it: each start tries it once, N times in all."""
        path = tmp_path / "jobs.db"
        for start in range(3):
            child = _child(path, how, first=start == 0)
            assert child.stdout is not None
            for line in child.stdout:
                if line == b"spinning\n":
                    child.send_signal(signal.SIGKILL)
            assert child.wait(20) == -signal.SIGKILL
        last = _child(path, how, first=False, quiet=True)
        output, _ = last.communicate(timeout=20)
        assert b"dead lost 3" in output


class TestUnknown:
    async def test_job_06_a_kind_that_nobody_knows_is_a_dead_letter(self, desk: Desk) -> None:
        async def run(_: Attempt) -> None:
            return None

        newer = await desk.service(kind(run, name="mail/2"))
        job = await newer.enqueue("mail/2", {}, delay_s=0.05)
        await newer.stop()
        older = await desk.service(kind(run, name="mail/1"))
        await ended(older, job.id, JobState.DEAD)
        assert (await older.get(job.id)).error_code == "unknown_type"
        with pytest.raises(InputError):
            await older.enqueue("mail/2", {})

    @pytest.mark.parametrize("data", [b"\x80\x04K\x01.", b"{", b"[" * 99, b'{"a":1e999}', b"\xff"])
    async def test_job_06_a_payload_that_is_no_json_of_ours_is_a_dead_letter(
        self, desk: Desk, data: bytes
    ) -> None:
        async def run(attempt: Attempt) -> None:
            raise AssertionError(attempt.payload)

        first = await desk.service(kind(run))
        job = await first.enqueue("mail/1", {}, delay_s=0.05)
        await first.stop()
        with sqlite3.connect(desk.path) as rows:
            rows.execute("UPDATE jobs SET payload = ?", (data,))
        rows.close()
        service = await desk.service(kind(run))
        await ended(service, job.id, JobState.DEAD)
        assert (await service.get(job.id)).attempt == 1


class TestEnd:
    async def test_job_09_a_job_under_way_is_given_back_when_the_daemon_stops(
        self, desk: Desk
    ) -> None:
        begun, was_cancelled = asyncio.Event(), asyncio.Event()

        async def hang(_: Attempt) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                was_cancelled.set()

        first = await desk.service(kind(hang))
        job = await first.enqueue("mail/1", {})
        await begun.wait()
        await first.stop()
        assert was_cancelled.is_set()
        assert first.health().state is HealthState.STOPPED

        async def run(attempt: Attempt) -> dict[str, Any]:
            return {"attempt": attempt.number}

        second = await desk.service(kind(run))
        await ended(second, job.id, JobState.DONE)
        assert (await second.get(job.id)).result == b'{"attempt":1}'

    async def test_sto_18_a_damaged_queue_is_kept_aside_and_told(self, desk: Desk) -> None:
        desk.path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)

        async def run(_: Attempt) -> None:
            return None

        service = await desk.service(kind(run))
        job = await service.enqueue("mail/1", {})
        await ended(service, job.id, JobState.DONE)
        assert service.health().state is HealthState.DEGRADED
        aside = list(desk.path.parent.glob("jobs.db.damaged-*"))
        assert len(aside) == 1
        assert aside[0].name in service.health().detail

    def test_what_was_answered_for_survives_kill_9(self, tmp_path: Path) -> None:
        """A child puts jobs in, says each on a pipe, and is killed at some moment."""
        path = tmp_path / "jobs.db"
        code = """
            import asyncio, random, sys
            from pathlib import Path
            from services.base.jobs.attempt import JobKind
            from services.base.jobs.service import JobsService
            from services.runtime.clock import SystemClock

            async def run(_):
                return None

            async def main():
                service = JobsService(
                    path=Path(sys.argv[1]), clock=SystemClock(), rng=random.Random(1)
                )
                service.register(JobKind(name="mail/1", run=run, timeout_s=5.0))
                await service.start()
                while True:
                    job = await service.enqueue("mail/1", {})
                    print(job.id, flush=True)

            asyncio.run(main())
        """
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(path)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        answered = [child.stdout.readline() for _ in range(40)]
        child.kill()
        answered += child.stdout.readlines()
        child.wait(20)
        whole = {line.decode().strip() for line in answered if line.endswith(b"\n")}
        with sqlite3.connect(path) as rows:
            assert rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            held = {row[0] for row in rows.execute("SELECT id FROM jobs")}
        rows.close()
        assert len(whole) >= 40
        assert whole <= held


def _child(path: Path, how: str, *, first: bool, quiet: bool = False) -> subprocess.Popen[bytes]:
    code = f"""
        import asyncio, os, random, sys
        from pathlib import Path
        from services.base.jobs.attempt import JobKind
        from services.base.jobs.model import Backoff
        from services.base.jobs.service import JobsService
        from services.runtime.clock import SystemClock

        def spin():
            print("spinning", flush=True)
            while True:
                pass

        async def run(_):
            {how}

        async def main():
            service = JobsService(path=Path(sys.argv[1]), clock=SystemClock(), rng=random.Random(1))
            service.register(JobKind(
                name="mail/1", run=run, timeout_s=5.0, max_attempts=3,
                backoff=Backoff(first_s=0.01, max_s=0.01),
            ))
            await service.start()
            if {first}:
                await service.enqueue("mail/1", {{}})
            if {quiet}:
                for job in await service.page():
                    print(job.state.value, job.error_code, job.attempt, flush=True)
                await service.stop()
                return
            await asyncio.sleep(30)

        asyncio.run(main())
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
