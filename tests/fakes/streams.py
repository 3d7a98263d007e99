"""One TCP connection between two endpoints of a lab, on which something is said all the time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from tests.fakes.namespaces import inside

if TYPE_CHECKING:
    from types import TracebackType

_COUNT = struct.Struct("!Q")
_EACH_S = 0.02
_CONNECT_S = 30.0


class Stream:
    """Numbers that one end sends, and how far the other has got, with none missing."""

    def __init__(self, source: str, target: str, address: str) -> None:
        """Connect.

        Args:
            source: the namespace of who connects.
            target: the namespace of who is connected to.
            address: the tunnel address of that one.
        """
        with inside(target), socket.create_server((address, 0)) as listening:
            port = listening.getsockname()[1]
            with inside(source):
                self._out = socket.create_connection((address, port), timeout=_CONNECT_S)
            self._in, _ = listening.accept()
        self.count = 0
        self.is_wrong = False
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=one, daemon=True) for one in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        for sock in (self._out, self._in):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        number = 0
        with contextlib.suppress(OSError):
            self._out.settimeout(None)
            while not self._is_over.is_set():
                number += 1
                self._out.sendall(_COUNT.pack(number))
                time.sleep(_EACH_S)

    def _receive(self) -> None:
        with contextlib.suppress(OSError), self._in.makefile("rb") as reading:
            while data := reading.read(_COUNT.size):
                (number,) = _COUNT.unpack(data)
                self.is_wrong |= number != self.count + 1
                self.count = number
