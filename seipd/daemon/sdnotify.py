"""Tells systemd how it stands (sd_notify(3)); does nothing where nobody listens."""

from __future__ import annotations

import os
import socket
import time


def notify(message: str) -> None:
    """Send one message, for example ``READY=1``."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.sendall(message.encode())


def notify_reloading() -> None:
    """Say that a reload begins; ``READY=1`` ends it."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
