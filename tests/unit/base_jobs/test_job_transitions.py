"""The life of a job as a table of transitions, and its waits."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.jobs import transitions
from services.base.jobs.model import Backoff, Job, JobState, StaleLeaseError, encode_object
from services.kernel.errors import ConflictError, InputError, TooLargeError

WAITING = Job(
    id="job-1",
    kind="mail/1",
    payload=b"{}",
    key=None,
    state=JobState.READY,
    attempt=0,
    max_attempts=3,
    run_at_ms=1_000,
    lease_until_ms=0,
    token="",
    created_ms=1_000,
    changed_ms=1_000,
    error_code="",
    error="",
    progress=b"{}",
    result=b"{}",
)


def running() -> Job:
    return transitions.claim(WAITING, token="first", now_ms=1_000, lease_ms=500)


class TestFence:
    @pytest.mark.parametrize("token", ["", "second"])
    def test_job_08_whoever_was_overtaken_changes_nothing(self, token: str) -> None:
        job = running()
        with pytest.raises(StaleLeaseError):
            transitions.finish(job, token=token, result=b"{}", now_ms=1_100)
        with pytest.raises(StaleLeaseError):
            transitions.extend(job, token=token, now_ms=1_100, lease_ms=500)
        with pytest.raises(StaleLeaseError):
            transitions.note(job, token=token, progress=b"{}", now_ms=1_100)
        with pytest.raises(StaleLeaseError):
            transitions.release(job, token=token, now_ms=1_100)
        with pytest.raises(StaleLeaseError):
            transitions.fail(job, token=token, code="x", error="x", wait_ms=1, now_ms=1_100)

    def test_job_08_a_job_that_is_over_has_no_holder(self) -> None:
        over = transitions.finish(running(), token="first", result=b"{}", now_ms=1_100)
        with pytest.raises(StaleLeaseError):
            transitions.finish(over, token="first", result=b"{}", now_ms=1_101)
        with pytest.raises(StaleLeaseError):
            transitions.finish(over, token="", result=b"{}", now_ms=1_101)

    def test_its_holder_may_bring_what_it_made_after_the_lease_unless_it_was_taken(self) -> None:
        late = 1_501
        assert transitions.is_lost(running(), late)
        done = transitions.finish(running(), token="first", result=b"{}", now_ms=late)
        assert done.state is JobState.DONE
        taken = transitions.reclaim(running(), why="lost", wait_ms=10, now_ms=late)
        with pytest.raises(StaleLeaseError):
            transitions.finish(taken, token="first", result=b"{}", now_ms=late)


class TestLife:
    def test_only_what_is_due_is_claimed(self) -> None:
        with pytest.raises(ConflictError):
            transitions.claim(WAITING, token="t", now_ms=999, lease_ms=500)
        with pytest.raises(ConflictError):
            transitions.claim(running(), token="t", now_ms=1_000, lease_ms=500)

    def test_a_failure_waits_and_the_last_one_is_a_dead_letter(self) -> None:
        job = WAITING
        for number in (1, 2, 3):
            assert job.state is JobState.READY
            job = transitions.claim(job, token="t", now_ms=job.run_at_ms, lease_ms=500)
            assert job.attempt == number
            job = transitions.fail(
                job, token="t", code="bad", error="no", wait_ms=50, now_ms=job.run_at_ms
            )
        assert job.state is JobState.DEAD
        assert (job.error_code, job.error, job.token) == ("bad", "no", "")

    def test_a_wait_that_is_no_fault_is_not_counted(self) -> None:
        failed = transitions.fail(
            running(), token="first", code="later", error="x", wait_ms=9, now_ms=1, counted=False
        )
        assert (failed.attempt, failed.state, failed.run_at_ms) == (0, JobState.READY, 10)

    def test_one_that_was_given_back_is_due_at_once(self) -> None:
        back = transitions.release(running(), token="first", now_ms=1_200)
        assert transitions.is_due(back, 1_200)
        assert back.attempt == 0

    def test_a_dead_letter_begins_anew_when_the_operator_says_so(self) -> None:
        dead = transitions.bury(WAITING, code="unknown_type", error="?", now_ms=5)
        again = transitions.revive(dataclasses.replace(dead, attempt=3), now_ms=9)
        assert (again.state, again.attempt, again.run_at_ms) == (JobState.READY, 0, 9)
        with pytest.raises(ConflictError):
            transitions.revive(running(), now_ms=9)


class TestBackoff:
    @given(st.integers(1, 10_000), st.integers())
    def test_waits_grow_to_their_bound_and_stay_within_the_jitter(
        self, attempt: int, seed: int
    ) -> None:
        backoff = Backoff(first_s=1, max_s=60, jitter=0.25)
        wait_s = min(2.0 ** min(attempt - 1, 10), 60)
        delay_ms = backoff.delay_ms(attempt, random.Random(seed))  # noqa: S311 (jitter)
        assert int(0.75 * wait_s * 1000) <= delay_ms <= 1.25 * wait_s * 1000

    def test_two_that_failed_together_do_not_come_back_together(self) -> None:
        rng = random.Random(1)  # noqa: S311 (jitter)
        assert len({Backoff().delay_ms(5, rng) for _ in range(20)}) > 15


class TestPayloads:
    @pytest.mark.parametrize("value", [b"\x80\x04K\x01.", ["x"], "x", None])
    def test_job_06_only_json_objects_are_carried(self, value: object) -> None:
        with pytest.raises(InputError):
            encode_object(value, "a payload")  # type: ignore[arg-type]

    def test_job_06_ten_megabytes_are_refused(self) -> None:
        with pytest.raises(TooLargeError):
            encode_object({"x": "y" * 10_000_000}, "a payload")
