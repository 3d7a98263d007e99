"""Jobs and certificates as an operator and an endpoint ask for them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from services.base.jobs.attempt import Attempt, JobKind
from services.base.jobs.model import Backoff, HopelessError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.base.jobs.service import JobsService
    from tests.fakes.one_server import OneServer


@pytest.fixture
async def jobs(server: OneServer) -> AsyncIterator[JobsService]:
    """The queue of the server, with jobs that do what their payload says."""

    async def run(attempt: Attempt) -> None:
        if attempt.payload.get("hopeless"):
            raise HopelessError("nobody there \x1b[31m")

    service = server.jobs
    service.register(JobKind(name="mail/1", run=run, timeout_s=60, backoff=Backoff(first_s=0.01)))
    await service.start()
    yield service
    await service.stop()


async def over(jobs: JobsService, job_id: str) -> None:
    async with asyncio.timeout(60):
        while (await jobs.get(job_id)).is_live:
            await asyncio.sleep(0.01)


class TestJobs:
    async def test_jobs_are_listed_in_pages_the_newest_first(
        self, jobs: JobsService, operator: Any
    ) -> None:
        made = [await jobs.enqueue("mail/1", {"n": n}, delay_s=3600) for n in range(5)]
        found: list[str] = []
        cursor = ""
        for _ in range(3):
            answer = await operator.get(f"/api/jobs?limit=2&cursor={cursor}")
            page = await answer.json()
            found += [one["id"] for one in page["jobs"]]
            cursor = page["cursor"] or ""
        assert not cursor
        assert sorted(found) == sorted(one.id for one in made)
        assert len(found) == 5

    @pytest.mark.parametrize(
        "query",
        [
            "limit=0",
            "limit=501",
            "limit=x",
            "state=lost",
            "cursor=5",
            "cursor=1-job-x",
            "state=a&state=b",
        ],
    )
    async def test_a_question_that_is_none_is_refused(
        self, jobs: JobsService, operator: Any, query: str
    ) -> None:
        assert (await operator.get(f"/api/jobs?{query}")).status == 400

    async def test_nobody_else_sees_jobs(self, jobs: JobsService, private: Any) -> None:
        for path in ("/api/jobs", "/api/jobs/job-0123456789abcdef", "/api/certs"):
            assert (await private.get(path)).status == 401

    async def test_job_02_the_command_shows_dead_letters_and_lets_them_begin_anew(
        self, jobs: JobsService, seipd: Any
    ) -> None:
        good = await jobs.enqueue("mail/1", {})
        bad = await jobs.enqueue("mail/1", {"hopeless": True}, key="for\nsomebody")
        await over(jobs, good.id)
        await over(jobs, bad.id)
        listed = json.loads((await seipd("jobs", "dlq", "--json")).stdout)["jobs"]
        assert [(one["id"], one["error_code"]) for one in listed] == [(bad.id, "hopeless")]
        shown = await seipd("jobs", "ls", "--state", "dead")
        assert bad.id in shown.stdout
        assert good.id not in shown.stdout
        again = json.loads((await seipd("jobs", "retry", bad.id, "--json")).stdout)
        assert (again["state"], again["attempt"]) == ("ready", 0)
        await over(jobs, bad.id)
        assert (await seipd("jobs", "retry", good.id)).returncode == 6
        assert (await seipd("jobs", "show", "job-0000000000000000")).returncode == 5
        assert (await seipd("jobs", "show", "../../etc")).returncode == 5
        assert "for\\n" in (await seipd("jobs", "show", bad.id, "--json")).stdout

    async def test_a_worker_lets_the_next_that_waits_run_now_and_tells_what_came(
        self, jobs: JobsService, seipd: Any
    ) -> None:
        assert "waits" in (await seipd("worker", "mail/1", "--once")).stderr
        later = await jobs.enqueue("mail/1", {}, delay_s=7200)
        sooner = await jobs.enqueue("mail/1", {"hopeless": True}, key="a\nb", delay_s=3600)
        failed = await seipd("worker", "mail/1", "--once")
        assert failed.returncode == 1
        assert sooner.id in failed.stdout
        assert "dead  attempt 1/8" in failed.stdout
        assert "\x1b" not in failed.stdout
        assert len(failed.stdout.splitlines()) == 1
        done = await seipd("worker", "mail/1", "--once", "--json")
        assert done.returncode == 0
        assert {json.loads(done.stdout)[one] for one in ("id", "state")} == {later.id, "done"}
        assert "waits" in (await seipd("worker", "mail/1", "--once")).stderr


class TestCertificates:
    async def test_where_no_ca_is_set_it_is_said_what_to_do(
        self, jobs: JobsService, seipd: Any
    ) -> None:
        assert json.loads((await seipd("certs", "ls", "--json")).stdout) == []
        done = await seipd("certs", "issue", "a.mesh.example")
        assert done.returncode == 6
        assert "--tls acme" in done.stderr

    @pytest.mark.parametrize("name", ["..%2f..%2fetc", "A.b", "a", "x" * 250 + ".b"])
    async def test_a_name_that_is_none_is_refused(
        self, jobs: JobsService, operator: Any, name: str
    ) -> None:
        assert (await operator.get(f"/api/certs/{name}")).status in (400, 404)
