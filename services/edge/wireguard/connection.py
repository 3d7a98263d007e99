"""One persistent connection to the socket of a userspace WireGuard device."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from services.edge.wireguard import uapi
from services.edge.wireguard.backend import DeviceGoneError

if TYPE_CHECKING:
    from pathlib import Path

MAX_REPLY_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 2.0
REPLY_TIMEOUT_S = 10.0
# A batch of 5,000 peers takes under a second on a quiet machine; a loaded one gets plenty.
_SLOWEST_BYTES_PER_S = 50_000

_BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
_CREDENTIALS = struct.Struct("3i")


class UapiConnection:
    """Requests in turn over one connection, which is made anew when it broke."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def peer_pid(self) -> int:
        """Return the id of the process that listens on the socket.

        Raises:
            DeviceGoneError: nobody answers.
        """
        async with self._lock:
            _, writer = await self._connected()
            sock: socket.socket = writer.get_extra_info("socket")
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid: int = _CREDENTIALS.unpack(data)[0]
            return pid

    async def request(self, data: bytes) -> bytes:
        """Send one request and return the reply, up to and with its empty line.

        Raises:
            DeviceGoneError: no connection, no answer in time, or a closed connection, which is
                also what the device does with an operation it does not know.
        """
        timeout_s = REPLY_TIMEOUT_S + len(data) / _SLOWEST_BYTES_PER_S
        async with self._lock:
            reader, writer = await self._connected()
            try:
                async with asyncio.timeout(timeout_s):
                    writer.write(data)
                    await writer.drain()
                    return await reader.readuntil(uapi.END)
            except BaseException as error:
                # Whatever came between, the next reply on this connection would not be ours.
                self._drop()
                if isinstance(error, TimeoutError):
                    raise DeviceGoneError("WireGuard did not answer in time") from error
                if isinstance(error, _BROKEN):
                    raise DeviceGoneError("WireGuard closed the connection") from error
                raise

    async def close(self) -> None:
        """Close the connection; the device goes on."""
        async with self._lock:
            self._drop()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._stream is not None and self._stream[0].at_eof():
            self._drop()
        if self._stream is None:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    self._stream = await asyncio.open_unix_connection(
                        self._path, limit=MAX_REPLY_BYTES
                    )
            except (OSError, TimeoutError) as error:
                raise DeviceGoneError(f"no WireGuard answers at {self._path}") from error
        return self._stream

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None
