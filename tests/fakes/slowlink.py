"""A slow cable between two hosts of a lab: a tun in each, joined by a process that waits.

    python -m tests.fakes.slowlink NAMESPACE NAMESPACE DEVICE DELAY_MS

A line on its standard input is another delay, for one way, in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.namespaces import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seipd.lab.mesh import Lab

_TUNSETIFF = 0x400454CA
_TUN_NO_PI = 0x1001
_PACKET_BYTES = 65_536


class SlowLink:
    """The link, for a test to make slower or faster."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def delay(self, one_way_ms: int) -> None:
        """Let packets take so long from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{one_way_ms}\n".encode())
        self._process.stdin.flush()


@contextlib.contextmanager
def slow_link(lab: Lab, one: str, other: str, one_way_ms: int) -> Iterator[SlowLink]:
    """Put a slow cable between two hosts, in place of the fast one."""
    ends = lab.plan.host(one), lab.plan.host(other)
    device = f"slow-{one}{other}"
    words = [*(end.namespace for end in ends), device, str(one_way_ms)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.slowlink", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            for here, there in (ends, ends[::-1]):
                ip = ["ip", "-n", here.namespace]
                subprocess.run([*ip, "link", "set", device, "up"], check=True)
                way = ["dev", device, "src", here.address]
                subprocess.run([*ip, "route", "add", f"{there.address}/32", *way], check=True)
            yield SlowLink(process)
        finally:
            process.kill()


def _tun_in(namespace: str, device: str) -> int:
    """Return the other side of a new tun in a namespace."""
    with inside(namespace):
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        wish = struct.pack("16sH22x", device.encode(), _TUN_NO_PI)
        fcntl.ioctl(tun, _TUNSETIFF, wish)
    return tun


async def _main(one: str, other: str, device: str, delay: str) -> None:
    loop = asyncio.get_running_loop()
    ends = _tun_in(one, device), _tun_in(other, device)
    delay_s = int(delay) / 1000

    def carry(source: int, target: int) -> None:
        with contextlib.suppress(BlockingIOError):
            packet = os.read(source, _PACKET_BYTES)
            loop.call_later(delay_s, drop_or_write, target, packet)

    def drop_or_write(target: int, packet: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(target, packet)

    loop.add_reader(ends[0], carry, *ends)
    loop.add_reader(ends[1], carry, *ends[::-1])
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    async for line in reader:
        delay_s = int(line) / 1000


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
