"""Background tasks with a name and an owner: none is forgotten, none fails in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0

OnCrash = Callable[[str, BaseException], None]


class TaskOwner:
    """Owns tasks: keeps them referenced, reports those that crash, ends them all at once."""

    def __init__(self, name: str, on_crash: OnCrash | None = None) -> None:
        self.name = name
        self._on_crash = on_crash
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def count(self) -> int:
        """How many tasks are running."""
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run a coroutine in the background until it ends or ``close`` is called."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel every task and wait for them; may be called twice."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, slow = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
            for task in slow:
                logger.warning("task %s does not end", task.get_name())

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.error("task %s of %s crashed", task.get_name(), self.name, exc_info=error)
        if self._on_crash is not None:
            self._on_crash(task.get_name(), error)
