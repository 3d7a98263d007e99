"""A background task is never forgotten and never fails in silence."""

from __future__ import annotations

import asyncio
import gc
import logging

from services.runtime import tasks as tasks_module
from services.runtime.tasks import TaskOwner


async def test_cli_13_a_crash_is_reported_by_name_and_logged(caplog):
    crashes = []
    owner = TaskOwner("gossip", on_crash=lambda name, error: crashes.append((name, error)))
    error = RuntimeError("wire cut")

    async def crash():
        raise error

    task = owner.spawn(crash(), name="tick")
    with caplog.at_level(logging.ERROR):
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert crashes == [("tick", error)]
    assert "tick of gossip crashed" in caplog.text
    assert owner.count == 0


async def test_ending_and_being_cancelled_are_no_crash():
    crashes = []
    owner = TaskOwner("x", on_crash=lambda *crash: crashes.append(crash))
    done = owner.spawn(asyncio.sleep(0, "value"), name="ends")
    cancelled = owner.spawn(asyncio.sleep(3600), name="is cancelled")
    assert await done == "value"
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await asyncio.sleep(0)
    assert crashes == []


async def test_a_task_nobody_else_holds_outlives_the_garbage_collector():
    owner = TaskOwner("x")
    gate, reached = asyncio.Event(), asyncio.Event()

    async def waits():
        await gate.wait()
        reached.set()

    owner.spawn(waits(), name="held")
    await asyncio.sleep(0)
    gc.collect()
    gate.set()
    await asyncio.wait_for(reached.wait(), 60)
    assert reached.is_set()


async def test_close_ends_all_and_waits_for_what_they_release():
    owner = TaskOwner("x")
    released = []

    async def holds(name):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            released.append(name)

    for name in ("one", "two"):
        owner.spawn(holds(name), name=name)
    await asyncio.sleep(0)
    await owner.close()
    await owner.close()
    assert sorted(released) == ["one", "two"]
    assert owner.count == 0


async def test_close_names_a_task_that_will_not_end(monkeypatch, caplog):
    monkeypatch.setattr(tasks_module, "CLOSE_TIMEOUT_S", 0.01)
    owner, gate = TaskOwner("x"), asyncio.Event()

    async def stubborn():
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    task = owner.spawn(stubborn(), name="mule")
    await asyncio.sleep(0)
    await owner.close()
    assert "task mule does not end" in caplog.text
    gate.set()
    await task


async def test_a_task_may_close_its_own_owner():
    owner = TaskOwner("x")
    other = owner.spawn(asyncio.sleep(3600), name="other")
    closer = owner.spawn(owner.close(), name="closer")
    await asyncio.wait_for(closer, 60)
    assert other.cancelled()
