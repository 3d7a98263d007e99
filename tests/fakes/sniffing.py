"""Sees what a namespace sends: UDP datagrams, by time, destination and first bytes."""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from tests.fakes.namespaces import inside

if TYPE_CHECKING:
    from types import TracebackType

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One UDP datagram that left."""

    at_s: float
    device: str
    host: str
    port: int
    payload: bytes


class Sniffer:
    """Watches all devices of a namespace while it is entered."""

    def __init__(self, namespace: str) -> None:
        with inside(namespace):
            self._sock = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)
            )
        self._sock.settimeout(0.1)
        self._is_done = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent: list[Sent] = []

    def __enter__(self) -> Sniffer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_done = True
        self._thread.join()
        self._sock.close()

    def _run(self) -> None:
        while not self._is_done:
            try:
                data, (device, protocol, direction, *_) = self._sock.recvfrom(2048)
            except TimeoutError:
                continue
            if direction == _PACKET_OUTGOING:
                self._note(device, protocol, data)

    def _note(self, device: str, protocol: int, data: bytes) -> None:
        if protocol == _IPV4 and data[9] == _UDP:
            host, segment = ip_address(data[16:20]), data[(data[0] & 0xF) * 4 :]
        elif protocol == _IPV6 and data[6] == _UDP:
            host, segment = ip_address(data[24:40]), data[40:]
        else:
            return
        (port,) = struct.unpack_from("!H", segment, 2)
        one = Sent(
            at_s=time.monotonic(), device=device, host=str(host), port=port, payload=segment[8:]
        )
        self.sent.append(one)
