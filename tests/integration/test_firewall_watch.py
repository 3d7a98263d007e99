"""The kernel tells of a change of the firewall, whoever made it."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from services.runtime.nft import Nft, is_available
from services.runtime.nftwatch import FirewallWatch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def nft():
    if not is_available():
        pytest.skip("no nftables")
    made = Nft()
    yield made
    made.close()


async def test_a_table_that_comes_and_goes_is_told_each_time(nft) -> None:
    told = asyncio.Event()
    table = f"inet watched_{os.getpid()}"
    task = asyncio.create_task(FirewallWatch(told.set).run())
    try:
        # Until the watch has begun nothing is told.
        while not told.is_set():
            nft.run(f"add table {table}\ndelete table {table}\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await told.wait()
        for command in (f"add table {table}", f"add chain {table} one", f"delete table {table}"):
            await asyncio.sleep(0.6)
            told.clear()
            nft.run(command + "\n")
            async with asyncio.timeout(20):
                await told.wait()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        nft.run(f"add table {table}\ndelete table {table}\n")
