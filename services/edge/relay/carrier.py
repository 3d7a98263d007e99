"""Brings what the book decides to the data paths, in order, and then lets the parties know.

The kernel's path takes its changes in a thread, many in one transaction. A session that it can't
carry, and all where there is no such path, go by the program's own. Who is told that both are bound
is told once data passes.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections import deque
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from services.edge.relay.kernelpath import Leave
from services.edge.relay.model import Account, Link, Unlink
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from services.edge.relay.kernelpath import Change, KernelPath
    from services.edge.relay.model import Effect, Side
    from services.edge.relay.sessions import Book
    from services.edge.relay.userpath import UserPath

logger = logging.getLogger(__name__)

# So many packets have to be missing before another firewall is blamed.
BLAME_PACKETS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrive:
    host: str
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rates:
    by_number: Mapping[int, int]


_Job = tuple["Effect", ...] | _Arrive | _Look | _Rates


class Carrier:
    """Keeps the data paths in step with the book."""

    def __init__(
        self,
        *,
        book: Book,
        user: UserPath,
        kernel: KernelPath | None,
        tell: Callable[[Effect], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._book = book
        self._user = user
        self._kernel = kernel
        self._tell = tell
        self._monotonic_s = monotonic_s
        self._jobs: deque[_Job] = deque()
        self._news = asyncio.Event()
        self._arrived: set[tuple[str, str]] = set()
        self._passed_on: set[str] = set()
        self._in_kernel = bytearray()
        self._rates = array("I")
        self._counted = array("Q")
        self.trouble = ""
        """Why the kernel does not carry what it could, for people."""

    @property
    def has_kernel(self) -> bool:
        """Whether the kernel carries sessions."""
        return self._kernel is not None

    def arrive(self, host: str, interface: str) -> None:
        """Note by which interface datagrams come to one of the relay's addresses."""
        if self._kernel is not None and interface and (host, interface) not in self._arrived:
            self._arrived.add((host, interface))
            self._put(_Arrive(host=host, interface=interface))

    def run(self, effects: Sequence[Effect]) -> None:
        """Do what the book has decided."""
        if self._kernel is not None and any(isinstance(one, Link | Unlink) for one in effects):
            self._put(tuple(effects))
            return
        for one in effects:
            self._by_program(one)

    async def look(self) -> None:
        """Count what was carried since the last look, and tell the book."""
        done = asyncio.get_running_loop().create_future()
        self._put(_Look(done=done))
        await done

    def set_rates(self, by_number: Mapping[int, int]) -> None:
        """Let sessions be so fast from now on."""
        changed = {
            number: rate for number, rate in by_number.items() if self.rate_kbits(number) != rate
        }
        if changed:
            self._put(_Rates(by_number=changed))

    def rate_kbits(self, number: int) -> int:
        """Return how fast a session may be now."""
        return self._rates[number] if number < len(self._rates) else 0

    async def drive(self) -> None:
        """Work off what there is to do, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            jobs, self._jobs = self._jobs, deque()
            for are_effects, some in groupby(jobs, key=lambda job: isinstance(job, tuple)):
                if are_effects:
                    effects = [one for job in some if isinstance(job, tuple) for one in job]
                    await self._carry_out(effects)
                else:
                    for job in some:
                        await self._work(job)

    def _put(self, job: _Job) -> None:
        self._jobs.append(job)
        self._news.set()

    async def _work(self, job: _Job) -> None:
        if isinstance(job, _Arrive):
            await self._arrive(job)
        elif isinstance(job, _Rates):
            await self._set_rates(job.by_number)
        elif isinstance(job, _Look):
            await self._look()
            if not job.done.done():
                job.done.set_result(None)

    async def _arrive(self, job: _Arrive) -> None:
        if self._kernel is None:
            return
        try:
            passes = await asyncio.to_thread(self._kernel.arrive, job.host, job.interface)
        except SeipdError as error:
            await self._mend(error)
            return
        if passes:
            self._passed_on.add(job.host)
        elif job.host not in self._passed_on:
            self.trouble = f"{job.interface} does not forward"
            logger.info("the kernel does not forward from %s: the program relays", job.interface)

    async def _carry_out(self, effects: Sequence[Effect]) -> None:
        """Change the paths, then tell."""
        changes: list[Change] = []
        for one in effects:
            if isinstance(one, Link):
                changes += self._link(one)
            elif isinstance(one, Unlink):
                changes += self._unlink(one)
        if changes:
            await self._apply(changes)
        for one in effects:
            if isinstance(one, Account):
                self._count_program(one.direction >> 1)
            if not isinstance(one, Link | Unlink):
                self._tell(one)

    async def _apply(self, changes: list[Change]) -> None:
        if self._kernel is None:
            return
        try:
            await asyncio.to_thread(self._kernel.apply, changes)
        except SeipdError as error:
            await self._mend(error)
            return
        for change in changes:
            if isinstance(change, Link):
                self._forget_counts(change.number)

    def _by_program(self, one: Effect) -> None:
        if isinstance(one, Link):
            self._link(one)
        elif isinstance(one, Unlink):
            self._unlink(one)
        else:
            if isinstance(one, Account):
                self._count_program(one.direction >> 1)
            self._tell(one)

    def _link(self, one: Link) -> list[Change]:
        """Let the program carry a session, or return what the kernel is to be told."""
        number = one.number
        while number >= len(self._in_kernel):
            self._in_kernel.append(0)
            self._rates.append(0)
            self._counted.extend((0, 0))
        self._rates[number] = one.rate_kbits
        self._in_kernel[number] = self._fits(one)
        if self._in_kernel[number]:
            return [one]
        self._user.link(one)
        return [Leave(side=side, wanted=True) for side in (one.a, one.b)]

    def _unlink(self, one: Unlink) -> list[Change]:
        if one.number < len(self._in_kernel) and self._in_kernel[one.number]:
            self._in_kernel[one.number] = 0
            return [one]
        self._count_program(one.number)
        self._user.unlink(one.number)
        return [Leave(side=side, wanted=False) for side in (one.a, one.b)]

    def _fits(self, one: Link) -> bool:
        hosts = (one.a.place.host, one.b.place.host)
        if self._kernel is None or (":" in hosts[0]) != (":" in hosts[1]):
            return False
        if one.a.place.port != one.b.place.port:  # one of them was barred in mid-session
            return False
        return all(host in self._passed_on for host in hosts)

    async def _set_rates(self, by_number: Mapping[int, int]) -> None:
        slower: list[tuple[Link, tuple[int, int]]] = []
        for number, rate in by_number.items():
            link = self._book.sides(number)
            if link is None or number >= len(self._rates):
                continue
            self._rates[number] = rate
            if self._in_kernel[number]:
                counted = (self._counted[2 * number], self._counted[2 * number + 1])
                slower.append((_with_rate(link, rate), counted))
            else:
                self._user.set_rate(number, rate)
        if slower and self._kernel is not None:
            try:
                await asyncio.to_thread(self._kernel.set_rates, slower)
            except SeipdError as error:
                await self._mend(error)

    async def _look(self) -> None:
        for number in self._book.numbers():
            if number >= len(self._in_kernel) or not self._in_kernel[number]:
                self._count_program(number)
        if self._kernel is None:
            return
        try:
            seen = await asyncio.to_thread(self._kernel.read)
        except SeipdError as error:
            await self._mend(error)
            return
        self._count(seen.bytes_by_direction)
        lost = seen.taken_packets - seen.sent_packets
        if lost > max(BLAME_PACKETS, seen.taken_packets // 2):
            await self._give_up("another firewall drops what is forwarded")

    def _count(self, passed: Mapping[int, int]) -> None:
        now_s = self._monotonic_s()
        for direction, total in passed.items():
            if direction < len(self._counted):
                before = self._counted[direction]
                self._book.carried(direction, total - before if total > before else 0, now_s)
                self._counted[direction] = total

    def _count_program(self, number: int) -> None:
        now_s = self._monotonic_s()
        for direction in (2 * number, 2 * number + 1):
            self._book.carried(direction, self._user.take_passed(direction), now_s)

    def _forget_counts(self, number: int) -> None:
        self._counted[2 * number] = self._counted[2 * number + 1] = 0

    async def _mend(self, error: SeipdError) -> None:
        """Make the kernel's table anew from the book; where that fails, do without it."""
        if self._kernel is None:
            return
        logger.warning("the relay's table is made anew: %s", error)
        links = [link for n in self._book.numbers() if (link := self._book.sides(n)) is not None]
        there = [_with_rate(one, self.rate_kbits(one.number) or one.rate_kbits) for one in links]
        left: list[Side] = []
        for one in there:
            if any(isinstance(change, Leave) for change in self._link(one)):
                left += [one.a, one.b]
            self._forget_counts(one.number)
        kept = [one for one in there if self._in_kernel[one.number]]
        try:
            await asyncio.to_thread(self._kernel.rebuild, kept, left)
        except SeipdError as again:
            await self._give_up(str(again))

    async def _give_up(self, why: str) -> None:
        """Carry everything in the program from now on."""
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return
        self.trouble = why
        logger.warning("the kernel relays no more: %s", why)
        await asyncio.to_thread(kernel.close)
        for number in self._book.numbers():
            link = self._book.sides(number)
            if link is not None:
                self._link(_with_rate(link, self.rate_kbits(number) or link.rate_kbits))

    async def close(self) -> None:
        """Let nothing pass any more."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            await asyncio.to_thread(kernel.close)
        self._user.close()


def _with_rate(link: Link, rate_kbits: int) -> Link:
    return Link(number=link.number, a=link.a, b=link.b, rate_kbits=rate_kbits)
