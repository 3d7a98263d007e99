"""Tells systemd how it stands (sd_notify(3)); does nothing where nobody listens."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time

logger = logging.getLogger(__name__)


def notify(message: str) -> None:
    """Send one message, for example ``READY=1``; a daemon does not end because nobody takes it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.connect(address)
            sock.sendall(message.encode())
    except OSError as error:
        logger.warning("systemd could not be told: %s", error)


def notify_status(text: str) -> None:
    """Say in one line how it goes, for ``systemctl status``."""
    notify(f"STATUS={text}")


def notify_reloading() -> None:
    """Say that a reload begins; ``READY=1`` ends it."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval_s() -> float | None:
    """Return how often systemd wants to hear from this process: half of its patience, or never."""
    told, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if process not in (None, str(os.getpid())):
        return None
    if not told.isascii() or not told.isdigit() or not int(told):
        return None
    return int(told) / 2_000_000


async def keep_watchdog(interval_s: float) -> None:
    """Tell systemd at each interval that the event loop turns; one that hangs is restarted."""
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
