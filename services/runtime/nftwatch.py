"""Tells at once when somebody changes this machine's firewall, and so perhaps a table of ours.

The kernel says by netlink that something of nftables changed; what, whoever is told looks for
himself. Much of it is no news, so what comes within a moment is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SETTLE_S: Final = 0.02
APART_S: Final = 0.5
_NETLINK_NETFILTER: Final = 12
_NFNLGRP_NFTABLES: Final = 7
"""Of linux/netlink.h and linux/netfilter/nfnetlink.h."""
_MESSAGES_BYTES: Final = 1 << 16


class FirewallWatch:
    """Looks while it runs."""

    def __init__(self, *on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            OSError: this program may not.
        """
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        with socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER) as sock:
            sock.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
            loop.add_reader(sock.fileno(), self._drain, sock)
            try:
                while True:
                    await self._news.wait()
                    # A transaction is told in several messages, and ours come in pairs.
                    await asyncio.sleep(SETTLE_S)
                    self._news.clear()
                    for tell in self._on_change:
                        tell()
                    await asyncio.sleep(APART_S)
            finally:
                loop.remove_reader(sock.fileno())

    def _drain(self, sock: socket.socket) -> None:
        # Also when the kernel had more to say than there was room for (ENOBUFS).
        self._news.set()
        with contextlib.suppress(OSError):
            while os.read(sock.fileno(), _MESSAGES_BYTES):
                pass
