"""Work that goes on whatever happens to it: one fault does not take the tunnel down."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

AGAIN_S: Final = (1.0, 5.0, 30.0, 300.0)


async def steadily(
    work: Callable[[], Awaitable[None]],
    name: str,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now_s: Callable[[], float] = time.monotonic,
) -> None:
    """Do some work until it ends by itself; begin it anew, later and later, where it fails.

    What went well for longer than the longest pause has not failed before.
    """
    failed_count = 0
    while True:
        begun_s = now_s()
        try:
            await work()
        except Exception:
            logger.exception("%s failed, and begins anew", name)
        else:
            return
        if now_s() - begun_s > AGAIN_S[-1]:
            failed_count = 0
        await sleep(AGAIN_S[min(failed_count, len(AGAIN_S) - 1)])
        failed_count += 1
