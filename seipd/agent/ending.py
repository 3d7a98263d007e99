"""Takes down what an agent has put up: all of it, whatever becomes of one part."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

logger = logging.getLogger(__name__)


async def end_each(steps: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Do each step, in turn; one that fails is told in the log, and the next one is done."""
    for name, step in steps.items():
        try:
            await step()
        except Exception:
            logger.exception("%s did not end well", name)
