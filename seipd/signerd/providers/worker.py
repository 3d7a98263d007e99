"""Threads for calls into the world that may hang: a token's library, a name server.

A call that hangs can't be ended from outside. So its caller stops waiting after a while, and as
long as every thread is stuck the next callers are refused at once: no thread is ever added.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

from services.kernel.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_WAITING = 128
CLOSE_WAIT_S = 1.0


class Worker:
    """A fixed number of threads, one unless told otherwise, and a bounded queue before them."""

    def __init__(self, name: str, *, threads: int = 1, max_waiting: int = MAX_WAITING) -> None:
        self._name = name
        self._size = threads
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(max_waiting)
        self._hung: set[Future[object]] = set()
        self._closed = False

    def call(self, work: Callable[[], T], *, wait_s: float) -> T:
        """Run something in a thread of these; wait for what it returns, but not for ever.

        Raises:
            UnavailableError: ``provider_hangs``, ``provider_busy`` or ``provider_closed``.
            Exception: what the work itself raises.
        """
        future: Future[T] = Future()
        self._enqueue(lambda: _run(future, work))
        wait([future], timeout=wait_s)
        if not future.done() and not future.cancel():
            self._hung.add(future)  # type: ignore[arg-type]
            future.add_done_callback(self._hung.discard)
        if future.cancelled() or not future.done():
            raise UnavailableError(
                f"the {self._name} does not answer within {wait_s:g} s", code="provider_hangs"
            )
        return future.result()

    def close(self) -> None:
        """End the threads that can be ended; may be called twice."""
        with self._lock:
            first, self._closed = not self._closed, True
        if not first:
            return
        for _ in self._threads:
            try:
                self._jobs.put_nowait(None)
            except queue.Full:
                break
        for thread in self._threads:
            thread.join(0 if self._hung else CLOSE_WAIT_S)

    def _enqueue(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise UnavailableError(f"the {self._name} is closed", code="provider_closed")
            if len(self._hung) >= self._size:
                raise UnavailableError(
                    f"the {self._name} still hangs in an earlier call", code="provider_hangs"
                )
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                raise UnavailableError(
                    f"too many calls wait for the {self._name}", code="provider_busy"
                ) from None
            if len(self._threads) < self._size:
                # A daemon thread: a library that hangs must not keep the process from ending.
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _run(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 (it is raised where the call was made)
        future.set_exception(error)
    else:
        future.set_result(result)
