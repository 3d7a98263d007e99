"""A slow, lossy cable between hosts of a lab: a tun in each, joined by a process that waits.

    python -m tests.fakes.slowlink DEVICE WAY NAMESPACE=ADDRESS NAMESPACE=ADDRESS...

A WAY is ``DELAY_MS LOST_PERCENT LATE_PERCENT``: how long a packet takes for one way, how many get
lost, and how many take half as long again, so that later ones overtake them. A line on the
standard input is another WAY.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.namespaces import inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from seipd.lab.mesh import Lab
    from seipd.lab.plan import Host

_TUNSETIFF = 0x400454CA
_TUN_NO_PI = 0x1001
_PACKET_BYTES = 65_536
_TO = slice(16, 20)
_AT_ONCE = 64


class SlowLink:
    """The link, for a test to make slower or faster."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def delay(self, one_way_ms: int, *, lost_percent: int = 0, late_percent: int = 0) -> None:
        """Let packets take so long from now on, and so many of them be lost or overtaken."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{one_way_ms} {lost_percent} {late_percent}\n".encode())
        self._process.stdin.flush()


@contextlib.contextmanager
def slow_link(lab: Lab, one: str, other: str, one_way_ms: int) -> Iterator[SlowLink]:
    """Put a slow cable between two hosts, in place of the fast one."""
    ends = lab.plan.host(one), lab.plan.host(other)
    with _slow(f"slow-{one}{other}", ends, one_way_ms) as link:
        yield link


@contextlib.contextmanager
def slow_net(lab: Lab, one_way_ms: int) -> Iterator[SlowLink]:
    """Put a slow cable between any two hosts of a lab, in place of the fast ones."""
    with _slow("slow-net", lab.plan.hosts, one_way_ms) as link:
        yield link


@contextlib.contextmanager
def _slow(device: str, ends: Sequence[Host], one_way_ms: int) -> Iterator[SlowLink]:
    words = [device, f"{one_way_ms} 0 0", *(f"{end.namespace}={end.address}" for end in ends)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.slowlink", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            for here in ends:
                _lay(device, here, [there for there in ends if there is not here])
            yield SlowLink(process)
        finally:
            process.kill()


def _lay(device: str, here: Host, others: Sequence[Host]) -> None:
    """Route what goes from a host to the others over its tun."""
    lines = [f"link set {device} up"]
    lines += [f"route add {one.address}/32 dev {device} src {here.address}" for one in others]
    ip = ["ip", "-n", here.namespace, "-batch", "-"]
    subprocess.run(ip, input="\n".join(lines).encode(), check=True)


def _tun_in(namespace: str, device: str) -> int:
    """Return the other side of a new tun in a namespace."""
    with inside(namespace):
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        wish = struct.pack("16sH22x", device.encode(), _TUN_NO_PI)
        fcntl.ioctl(tun, _TUNSETIFF, wish)
    return tun


async def _main(device: str, way: str, *ends: str) -> None:
    loop = asyncio.get_running_loop()
    one_way_ms, lost, late = map(int, way.split())
    chance = random.Random(1)  # noqa: S311 (which packet is lost)
    tuns = {}
    for end in ends:
        namespace, _, address = end.partition("=")
        tuns[socket.inet_aton(address)] = _tun_in(namespace, device)

    def carry(source: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(source, _PACKET_BYTES)
            except OSError:
                return
            target = tuns.get(packet[_TO])
            if target is not None and chance.random() * 100 >= lost:
                longer = 1.5 if chance.random() * 100 < late else 1
                loop.call_later(longer * one_way_ms / 1000, drop_or_write, target, packet)

    def drop_or_write(target: int, packet: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(target, packet)

    for tun in tuns.values():
        loop.add_reader(tun, carry, tun)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    async for line in reader:
        one_way_ms, lost, late = map(int, line.split())


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
