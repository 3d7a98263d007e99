"""Calls that hang cost their callers a bounded time, and the process a bounded count of threads."""

from __future__ import annotations

import threading

import pytest

from seipd.signerd.providers.worker import Worker
from services.kernel.errors import UnavailableError

SOON_S = 0.02
LONG_S = 60.0


@pytest.fixture
def stuck():
    """An event on which work hangs, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def refused(call) -> str:
    with pytest.raises(UnavailableError) as caught:
        call()
    return caught.value.code


def test_it_returns_what_the_work_returns_and_raises_what_it_raises() -> None:
    worker = Worker("thing")
    assert worker.call(lambda: 7, wait_s=LONG_S) == 7
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0, wait_s=LONG_S)
    with pytest.raises(TimeoutError, match="of the work itself"):
        worker.call(lambda: (_ for _ in ()).throw(TimeoutError("of the work itself")), wait_s=1)
    worker.close()


def test_everything_runs_in_one_and_the_same_thread() -> None:
    worker = Worker("thing")
    seen = {worker.call(threading.current_thread, wait_s=LONG_S) for _ in range(3)}
    assert len(seen) == 1
    assert seen != {threading.current_thread()}
    worker.close()
    assert not seen.pop().is_alive()


def test_work_that_hangs_is_refused_at_once_after_the_first_and_adds_no_thread(stuck) -> None:
    worker = Worker("thing that hangs")
    assert refused(lambda: worker.call(stuck.wait, wait_s=SOON_S)) == "provider_hangs"
    ran = []
    for _ in range(500):
        # Had it waited for the thread, this would take hours.
        assert (
            refused(lambda: worker.call(lambda: ran.append(1), wait_s=LONG_S)) == "provider_hangs"
        )
    assert [one.name for one in threading.enumerate()].count("thing that hangs") == 1
    assert ran == []
    worker.close()


def test_it_works_again_once_the_work_that_hung_came_back(stuck) -> None:
    worker = Worker("thing")
    assert refused(lambda: worker.call(stuck.wait, wait_s=SOON_S)) == "provider_hangs"
    stuck.set()
    while True:
        try:
            assert worker.call(lambda: 7, wait_s=LONG_S) == 7
        except UnavailableError:
            continue
        break
    worker.close()


def test_work_whose_caller_gave_up_in_the_queue_never_runs(stuck) -> None:
    worker, ran = Worker("thing"), []
    begun = threading.Event()

    def hold() -> None:
        begun.set()
        stuck.wait()

    first = threading.Thread(target=lambda: worker.call(hold, wait_s=LONG_S))
    first.start()
    begun.wait()
    assert refused(lambda: worker.call(lambda: ran.append(1), wait_s=SOON_S)) == "provider_hangs"
    stuck.set()
    first.join()
    assert worker.call(lambda: 7, wait_s=LONG_S) == 7
    assert ran == []
    worker.close()


def test_no_more_wait_than_there_is_room_for(stuck) -> None:
    worker = Worker("thing", max_waiting=1)
    begun = threading.Event()

    def hold() -> None:
        begun.set()
        stuck.wait()

    threads = [threading.Thread(target=lambda: worker.call(hold, wait_s=LONG_S)) for _ in range(2)]
    threads[0].start()
    begun.wait()
    threads[1].start()
    while not worker._jobs.full():
        pass
    assert refused(lambda: worker.call(lambda: 7, wait_s=LONG_S)) == "provider_busy"
    stuck.set()
    for thread in threads:
        thread.join()
    worker.close()


def test_two_threads_work_while_one_hangs(stuck) -> None:
    worker = Worker("thing", threads=2)
    worker.call(lambda: 0, wait_s=LONG_S)
    assert refused(lambda: worker.call(stuck.wait, wait_s=SOON_S)) == "provider_hangs"
    assert worker.call(lambda: 7, wait_s=LONG_S) == 7
    assert refused(lambda: worker.call(stuck.wait, wait_s=SOON_S)) == "provider_hangs"
    assert refused(lambda: worker.call(lambda: 7, wait_s=LONG_S)) == "provider_hangs"
    worker.close()


def test_closing_does_not_wait_for_what_hangs_and_may_be_said_twice(stuck) -> None:
    worker = Worker("thing")
    assert refused(lambda: worker.call(stuck.wait, wait_s=SOON_S)) == "provider_hangs"
    worker.close()
    worker.close()
    assert refused(lambda: worker.call(lambda: 7, wait_s=LONG_S)) == "provider_closed"
