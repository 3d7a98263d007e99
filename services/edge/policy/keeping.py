"""A table of the kernel's firewall that follows the state, as a service.

The table is there before the tunnels are, and stays when the daemon stops, as they do. Where the
kernel does not take it, all else goes on, and the health says so; it is tried again, and put back
where somebody else's firewall flushed it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from services.edge.policy.compiling import FAMILY
from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.nftwatch import FirewallWatch
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.authority.ports import Json, Ledger
    from services.base.ledger.watching import Change
    from services.edge.policy.table import KernelTable

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0


class KeptTable(ABC):
    """What each such service does with its table; what stands in it is its own affair."""

    name: ClassVar[str]
    views: ClassVar[tuple[str, ...]]
    """Of the state: what the table follows from."""
    not_kept: ClassVar[str]
    """What it means for people that the kernel does not hold the table."""

    def __init__(self, *, ledger: Ledger, table: KernelTable) -> None:
        self._ledger = ledger
        self._table = table
        self._full_name = f"{FAMILY} {table.name}"
        self._waiting: list[Change] = []
        self._news = asyncio.Event()
        self._is_touched = False
        self._tasks = TaskOwner(self.name, on_crash=self._crashed)
        self._trouble = "not started"
        self._is_running = False

    @property
    def is_kept(self) -> bool:
        """Whether the kernel holds the table."""
        return not self._trouble

    async def start(self) -> None:
        """Put the table into the kernel, where that takes it, and follow the state."""
        self._begin()
        self._ledger.subscribe(self.views, self._on_changes)
        await asyncio.to_thread(self._load, self._ledger.state.scan(*self.views))
        await self._replace()
        self._is_running = True
        self._tasks.spawn(self._apply_forever(), name=f"{self.name}-apply")
        self._tasks.spawn(self._watch(), name=f"{self.name}-watch")

    async def stop(self) -> None:
        """Watch no more; the table stays as long as the tunnels do."""
        self._is_running = False
        await self._tasks.close()
        self._table.close()

    def health(self) -> Health:
        """Say how much there is, or why it is not kept."""
        if not self._is_running:
            return Health(state=HealthState.STOPPED)
        if self._trouble:
            detail = f"{self.not_kept}: {self._trouble}"
            return Health(state=HealthState.DEGRADED, detail=detail)
        return Health(state=HealthState.OK, detail=self._counted())

    @abstractmethod
    def _begin(self) -> None:
        """Forget everything."""

    @abstractmethod
    def _load(self, held: Iterable[tuple[str, str, Json]]) -> None:
        """Take all that the state holds of the views; in a thread."""

    @abstractmethod
    def _follow(self, changes: list[Change]) -> tuple[str, Callable[[], None]]:
        """Take changes; return the commands that they come to, and what tells of them after."""

    @abstractmethod
    def _tell_all(self) -> None:
        """Tell that everything may be otherwise."""

    @abstractmethod
    def _whole(self) -> str:
        """Return the transaction that puts the whole table; in a thread."""

    @abstractmethod
    def _counted(self) -> str:
        """Say how much there is."""

    def _on_changes(self, changes: list[Change]) -> None:
        self._waiting += changes
        self._news.set()

    async def _watch(self) -> None:
        try:
            await FirewallWatch(self._touched).run()
        except OSError as error:
            logger.info("%s: changes of the firewall are seen late: %s", self.name, error)

    def _touched(self) -> None:
        """Take that the firewall was changed, by whomever."""
        self._is_touched = True
        self._news.set()

    async def _apply_forever(self) -> None:
        """Follow the state; what fails by a fault of ours begins anew, and freezes no rules."""
        is_behind = False
        while True:
            try:
                if is_behind:
                    await self._catch_up()
                    is_behind = False
                await self._keep_up()
            except Exception as error:
                logger.exception("%s failed, and begins anew", self.name)
                self._trouble = f"it failed, and begins anew: {error!r}"
                is_behind = True
                await asyncio.sleep(LOOK_EVERY_S)

    async def _catch_up(self) -> None:
        self._waiting = []
        self._begin()
        await asyncio.to_thread(self._load, self._ledger.state.scan(*self.views))
        await self._replace()
        self._tell_all()

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + LOOK_EVERY_S
        while True:
            # Also where there is always news, which may change nothing here.
            if self._is_touched or loop.time() >= due_s:
                self._is_touched = False
                await self._look()
                due_s = loop.time() + LOOK_EVERY_S
            try:
                async with asyncio.timeout_at(due_s):
                    await self._news.wait()
            except TimeoutError:
                continue
            self._news.clear()
            await self._apply()

    async def _apply(self) -> None:
        changes, self._waiting = self._waiting, []
        commands, tell = self._follow(changes)
        if commands and self._trouble:
            await self._replace()
        elif commands:
            try:
                await asyncio.to_thread(self._table.run, commands)
            except SeipdError as error:
                logger.warning("%s: a change was refused, all is put anew: %s", self.name, error)
                await self._replace()
        tell()

    def _crashed(self, task: str, error: BaseException) -> None:
        self._trouble = f"{task} ended: {error!r}"

    async def _look(self) -> None:
        """Put the table anew where it is missing, was changed by others, or was refused."""
        try:
            if not self._trouble and await asyncio.to_thread(self._table.is_intact):
                return
        except SeipdError as error:
            self._trouble = str(error)
            return
        if not self._trouble:
            logger.warning(
                "the table %s was removed or changed by somebody, it comes back", self._full_name
            )
        await self._replace()

    async def _replace(self) -> None:
        try:
            await asyncio.to_thread(lambda: self._table.replace(self._whole()))
        except SeipdError as error:
            if str(error) != self._trouble:
                logger.warning("%s: %s", self.not_kept, error)
            self._trouble = str(error)
        else:
            if self._trouble and self._is_running:
                logger.info("the table %s is kept again", self._full_name)
            self._trouble = ""
