"""A watch over our interface: what somebody else takes from it is noticed at once.

The kernel tells by netlink of every interface; what it says of ours, and is a loss, is told on.
Routes are not watched: on a router thousands of them come and go, and the regular look sees them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

SETTLE_S: Final = 0.1
PAUSE_S: Final = 2.0
"""Whoever takes it again and again does not keep us busy."""

_GROUPS: Final = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, IPV4_IFADDR, IPV6_IFADDR of linux/rtnetlink.h."""
_NEW_LINK: Final = 16
_DELETED_ADDRESS: Final = 21
_IFF_UP: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiI")
_ADDRESS: Final = struct.Struct("=BBBBI")
_MESSAGES_BYTES: Final = 1 << 16


class InterfaceWatch:
    """Tells when our interface lost an address, or was set down."""

    def __init__(self, interface: str, on_loss: Callable[[], object]) -> None:
        """Listen from now on; where the kernel does not let us, nothing is ever told."""
        self._interface = interface
        self._on_loss = on_loss
        self._lost = asyncio.Event()
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _GROUPS))
        except OSError as error:
            logger.info("the interface is looked at now and then only: %s", error)

    async def run(self) -> None:
        """Tell, until cancelled."""
        loop = asyncio.get_running_loop()
        with self._socket as sock:
            loop.add_reader(sock.fileno(), self._drain, sock)
            try:
                while True:
                    await self._lost.wait()
                    await asyncio.sleep(SETTLE_S)
                    self._lost.clear()
                    self._on_loss()
                    await asyncio.sleep(PAUSE_S)
            finally:
                loop.remove_reader(sock.fileno())

    def _drain(self, sock: socket.socket) -> None:
        try:
            while data := os.read(sock.fileno(), _MESSAGES_BYTES):
                if is_loss(data, self._index()):
                    self._lost.set()
        except BlockingIOError:
            return
        except OSError:
            # The kernel had more to say than there was room for (ENOBUFS).
            self._lost.set()

    def _index(self) -> int:
        try:
            return socket.if_nametoindex(self._interface)
        except OSError:
            return 0


def is_loss(data: bytes, index: int) -> bool:
    """Say whether one of these netlink messages tells that an interface lost something. Pure."""
    return any(
        (kind == _DELETED_ADDRESS and _address_of(body) == index)
        or (kind == _NEW_LINK and _is_down(body, index))
        for kind, body in _messages(data)
    )


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give type and body of each (RFC 3549 section 2.3.2)."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _address_of(body: bytes) -> int | None:
    return _ADDRESS.unpack_from(body)[4] if len(body) >= _ADDRESS.size else None


def _is_down(body: bytes, index: int) -> bool:
    if len(body) < _LINK.size:
        return False
    _, _, at, flags = _LINK.unpack_from(body)
    return bool(at == index and not flags & _IFF_UP)
