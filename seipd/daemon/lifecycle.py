"""Starts services in their order, stops them in reverse; a failed start leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from services.kernel.errors import SeipdError, StartError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.service import Service

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0


class ServiceStack:
    """An async context: inside it every service runs."""

    def __init__(
        self, services: Sequence[Service], *, stop_timeout_s: float = STOP_TIMEOUT_S
    ) -> None:
        self._services = services
        self._stop_timeout_s = stop_timeout_s
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> ServiceStack:
        """Start every service in order.

        Raises:
            StartError: one could not; those before it are stopped again.
        """
        async with AsyncExitStack() as partial:
            for service in self._services:
                partial.push_async_callback(self._stop_one, service)
                await _start_one(service)
                logger.info("service %s started", service.name)
            self._stack = partial.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop every service in reverse; one that hangs is left behind after its time."""
        await self._stack.aclose()

    async def _stop_one(self, service: Service) -> None:
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                await service.stop()
        except TimeoutError:
            logger.warning("service %s did not stop in time", service.name)
        except Exception:
            logger.exception("service %s failed to stop", service.name)
        else:
            logger.info("service %s stopped", service.name)


async def _start_one(service: Service) -> None:
    try:
        await service.start()
    except StartError:
        raise
    except SeipdError as error:
        raise StartError(
            f"{service.name}: {error}", service=service.name, code=error.code, mend=error.mend
        ) from error
    except Exception as error:
        # A fault of ours: its trace goes to the log, its name to whoever started the daemon.
        logger.exception("service %s failed to start", service.name)
        raise StartError(
            f"{service.name}: {type(error).__name__}: {error}",
            service=service.name,
            mend="the log has the details",
        ) from error
