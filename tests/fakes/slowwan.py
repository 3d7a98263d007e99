"""A NAT laboratory whose endpoints are far away: what they send to the WAN is late, or lost.

    python -m tests.fakes.slowwan

Instead of a cable there is a TAP at either end, and this process between. Lines on its standard
input lay one, ``lay NAMESPACE DEVICE SWITCH PORT``, or say what it is like from now on, ``way PORT
DELAY_MS JITTER_MS LOST_PERCENT LATE_PERCENT``. Jitter keeps the order; what is late takes half as
long again, and others overtake it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from tests.fakes.labs import lab_of
from tests.fakes.namespaces import inside
from tests.fakes.natlab import SECOND_UPLINK_OFFSET, NatLab

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from seipd.lab.plan import LabPlan
    from tests.fakes.natlab import Kind

_TUNSETIFF = 0x400454CA
_TAP_NO_PI = 0x1002
_FRAME_BYTES = 65_536
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Way:
    """What a cable does to a frame, in one direction."""

    delay_ms: int = 0
    jitter_ms: int = 0
    lost_percent: int = 0
    late_percent: int = 0

    def __str__(self) -> str:
        return f"{self.delay_ms} {self.jitter_ms} {self.lost_percent} {self.late_percent}"


class FarLab(NatLab):
    """A lab with a way of its own between each endpoint and the WAN."""

    def __init__(self, plan: LabPlan, kinds: Sequence[Kind], ways: Mapping[str, Way]) -> None:
        super().__init__(plan, kinds)
        self._ways = dict(ways)
        self._ports: dict[str, list[str]] = {}
        self._carrier = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.slowwan"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        )

    def set_way(self, name: str, way: Way) -> None:
        """Have an endpoint's way to the WAN be like this from now on, by each of its uplinks."""
        self._ways[name] = way
        for port in self._ports[name]:
            self._say(f"way {port} {way}")

    @contextlib.contextmanager
    def changed(self, ways: Mapping[str, Way]) -> Iterator[None]:
        """Have ways be like these for a while."""
        before = {name: self._ways[name] for name in ways}
        for name, way in ways.items():
            self.set_way(name, way)
        try:
            yield
        finally:
            for name, way in before.items():
                self.set_way(name, way)

    @override
    def lay_uplink(self, namespace: str, device: str, port: str) -> None:
        self._say(f"lay {namespace} {device} {self.plan.switch} {port}")
        name = f"e{int(port[3:]) % SECOND_UPLINK_OFFSET}"
        self._ports.setdefault(name, []).append(port)
        self.set_way(name, self._ways[name])

    @override
    def down(self) -> list[str]:
        self._carrier.kill()
        self._carrier.communicate()
        return super().down()

    def _say(self, line: str) -> None:
        assert self._carrier.stdin is not None
        assert self._carrier.stdout is not None
        self._carrier.stdin.write(line.encode() + b"\n")
        self._carrier.stdin.flush()
        assert self._carrier.stdout.readline() == b"done\n", line


@contextlib.contextmanager
def far_lab_of(
    kinds: Sequence[Kind], ways: Mapping[str, Way], *, servers: int = 1
) -> Iterator[FarLab]:
    """Give a lab that is yet to be built; nothing of it is left in the end."""
    with lab_of(servers, len(kinds), kind=lambda plan: FarLab(plan, kinds, ways)) as built:
        assert isinstance(built, FarLab)
        yield built


@dataclass(slots=True)
class _Cable:
    """Two TAPs, and what is under way between them."""

    ends: tuple[int, int]
    chance: random.Random
    way: Way = Way()
    last_s: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def carry(self, number: int) -> None:
        """Take what came in at one end, and have it come out at the other."""
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(self.ends[number], _FRAME_BYTES)
            except OSError:
                return
            self._take(number, frame)

    def _take(self, number: int, frame: bytes) -> None:
        loop, way = asyncio.get_running_loop(), self.way
        if self.chance.random() * 100 < way.lost_percent:
            return
        delay_s = (way.delay_ms + self.chance.uniform(0, way.jitter_ms)) / 1000
        due_s = max(loop.time() + delay_s, self.last_s[number])
        if self.chance.random() * 100 < way.late_percent:
            due_s += delay_s / 2
        else:
            self.last_s[number] = due_s
        loop.call_at(due_s, self._give, self.ends[1 - number], frame)

    def _give(self, end: int, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(end, frame)


def _tap_in(namespace: str, device: str) -> int:
    """Return the other side of a new TAP in a namespace."""
    with inside(namespace):
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        wish = struct.pack("16sH22x", device.encode(), _TAP_NO_PI)
        fcntl.ioctl(tap, _TUNSETIFF, wish)
        subprocess.run(["ip", "-n", namespace, "link", "set", device, "up"], check=True)
    return tap


def _lay(cables: dict[str, _Cable], namespace: str, device: str, switch: str, port: str) -> None:
    ends = _tap_in(namespace, device), _tap_in(switch, port)
    seed = len(cables)
    cables[port] = _Cable(ends, random.Random(seed))  # noqa: S311 (which frame is lost)
    for number, end in enumerate(ends):
        asyncio.get_running_loop().add_reader(end, cables[port].carry, number)


async def _main() -> None:
    loop, cables = asyncio.get_running_loop(), dict[str, _Cable]()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        verb, *words = line.decode().split()
        if verb == "lay":
            _lay(cables, *words)
        else:
            cables[words[0]].way = Way(*map(int, words[1:]))
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
