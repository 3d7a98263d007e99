"""Keeps this machine's resolver pointed at the gateway for as long as the gateway answers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from services.edge.dns.asking import ask
from services.edge.dns.wire import Type
from services.kernel.errors import SeipdError
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from seipd.agent.hostdns.ways import HostResolver

logger = logging.getLogger(__name__)

LOOK_S: Final = 2.0
SOON_S: Final = 0.3
TRY_S: Final = 1.0
MISSED_COUNT: Final = 3
SET, WAITING, FAILED, OFF = "set", "waiting", "failed", "off"


class Gateway(Protocol):
    """Who is asked for names of the mesh."""

    async def answers(self) -> bool:
        """Say whether it answers now."""


class AskedGateway:
    """The gateway, asked for the mesh's own domain."""

    def __init__(self, host: str, domain: str) -> None:
        self._host = host
        self._domain = domain

    async def answers(self) -> bool:
        """See Gateway."""
        try:
            reply = await ask((self._host, 53), self._domain, Type.SOA, tries=1, try_s=TRY_S)
        except SeipdError:
            return False
        return reply.rcode == 0 and bool(reply.rdatas)


class ResolverKeeper:
    """One endpoint's hand on the resolver of its machine."""

    def __init__(self, *, resolver: HostResolver, gateway: Gateway) -> None:
        self._resolver = resolver
        self._gateway = gateway
        self._tasks = TaskOwner("agent-dns")
        self._missed_count = 0
        self._state = WAITING
        self._why = ""

    def facts(self) -> dict[str, str]:
        """Return what ``seip status`` tells."""
        return {"way": self._resolver.way.value, "state": self._state, "why": self._why}

    def begin(self) -> None:
        """Look from now on, until ``end``."""
        self._tasks.spawn(self._look_forever(), name="agent-dns")

    async def _look_forever(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(SOON_S if self._state == WAITING else LOOK_S)

    async def look(self) -> None:
        """Point the resolver at a gateway that answers, and back from one that does not."""
        if await self._gateway.answers():
            self._missed_count = 0
            if await self._resolver.is_set():
                self._state, self._why = SET, ""
            else:
                await self._point()
            return
        self._missed_count += 1
        if self._missed_count < MISSED_COUNT:
            return
        if self._state == SET:
            logger.warning("the gateway answers no questions: names go to others again")
        # Also what could not be taken back the last time.
        if self._state == SET or await self._resolver.is_set():
            await self._take_back()
        self._state, self._why = FAILED, "the server answers no questions about names"

    async def end(self) -> None:
        """Leave the resolver as it was."""
        await self._tasks.close()
        await self._take_back()
        self._state, self._why = OFF, ""

    async def _take_back(self) -> None:
        try:
            await self._resolver.take_back()
        except SeipdError as error:
            logger.warning("the resolver: %s", error)

    async def _point(self) -> None:
        try:
            await self._resolver.point()
        except SeipdError as error:
            if str(error) != self._why:
                logger.warning("names of the mesh are not found here: %s", error)
            self._state, self._why = FAILED, str(error)
        else:
            self._state, self._why = SET, ""


def names_line(facts: dict[str, str] | None) -> str:
    """Return what people are told of the machine's names."""
    if facts is None:
        return "looked up as before"
    if facts["state"] == SET:
        return f"looked up at the gateway, by {facts['way']}"
    return f"looked up as before: {facts['why']}" if facts["why"] else "looked up as before"
