"""Sockets and devices of this process inside of other network namespaces."""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a namespace; what is opened there stays there. For this thread alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    away = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert libc.setns(away, _CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home, _CLONE_NEWNET) == 0
    finally:
        os.close(home)
        os.close(away)


def udp_in(namespace: str, host: str, port: int = 0) -> socket.socket:
    """Return a UDP socket bound in a namespace."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with inside(namespace):
        sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock
