"""What kind of NAT lies between this machine and a STUN server: RFC 3489's tests, by pystun3.

Those tests need a server with two addresses, and pystun3 asks on for ever where it is refused: so a
server is asked first whether it has them, and the library gets a socket that gives out in time.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from services.edge.stun.client import inquire
from services.runtime.blocking import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.edge.stun.messages import Address

DEADLINE_S: Final = 10.0
ADDRESS_S: Final = 3.0
WAIT_S: Final = 0.6
"""pystun3 sends each question four times; two of its tests may fail one after the other."""
MAX_SENT: Final = 40


class NatKind(StrEnum):
    """What lies in between, in words for people."""

    OPEN = "none"
    FIREWALL = "a firewall"
    FULL_CONE = "full cone"
    ADDRESS_RESTRICTED = "address-restricted cone"
    PORT_RESTRICTED = "port-restricted cone"
    SYMMETRIC = "symmetric"
    BLOCKED = "blocked"
    """No STUN server answers."""
    SOME = "some"
    """A NAT, or none; no server was there that could tell more."""


_NAMES: Final = {
    "Open Internet": NatKind.OPEN,
    "Symmetric UDP Firewall": NatKind.FIREWALL,
    "Full Cone": NatKind.FULL_CONE,
    "Restric NAT": NatKind.ADDRESS_RESTRICTED,
    "Restric Port NAT": NatKind.PORT_RESTRICTED,
    "Symmetric NAT": NatKind.SYMMETRIC,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NatReport:
    """How this machine is seen from outside."""

    kind: NatKind
    seen_as: str | None = None
    """The address, if any server said one."""
    asked: str | None = None
    """The server whose two addresses the tests were made with."""


async def look_at_nat(servers: Sequence[Address], *, deadline_s: float = DEADLINE_S) -> NatReport:
    """Find out what lies between this machine and these STUN servers, over IPv4.

    Args:
        servers: names or addresses, and ports; the first that has two addresses is tested with.
        deadline_s: how long it may take, about.
    """
    inquiry = await inquire(servers, deadline_s=min(deadline_s, ADDRESS_S))
    seen = inquiry.seen()
    if seen is None:
        return NatReport(kind=NatKind.BLOCKED)
    if seen.is_symmetric:
        return NatReport(kind=NatKind.SYMMETRIC, seen_as=seen.host)
    for server in inquiry.others:
        test = functools.partial(_test, server, deadline_s=deadline_s)
        named = await in_thread(test, name="stun-nat-kind")
        return NatReport(kind=_NAMES.get(named, NatKind.SOME), seen_as=seen.host, asked=server[0])
    is_own = seen.host == await asyncio.to_thread(_own_address, (seen.host, seen.port))
    return NatReport(kind=NatKind.OPEN if is_own else NatKind.SOME, seen_as=seen.host)


class _Patient:
    """What pystun3 takes for a socket: after a time or a number of questions it is of no use."""

    def __init__(self, sock: socket.socket, *, until_s: float, now_s: Callable[[], float]) -> None:
        self._sock = sock
        self._until_s = until_s
        self._now_s = now_s
        self._sent_count = 0

    def sendto(self, data: bytes, address: Address) -> int:
        self._sent_count += 1
        if self._sent_count > MAX_SENT or self._now_s() > self._until_s:
            raise TimeoutError("the tests take too long")
        return self._sock.sendto(data, address)

    def recvfrom(self, size_bytes: int) -> Any:  # noqa: ANN401 (handed through)
        return self._sock.recvfrom(size_bytes)


def _test(server: Address, *, deadline_s: float) -> str:
    """Return the name that pystun3 gives; empty where it can't tell."""
    # Rarely needed, so loaded here.
    from stun import get_nat_type

    own = _own_address(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT_S)
        try:
            sock.bind((own, 0))
            until_s = time.monotonic() + deadline_s
            patient = _Patient(sock, until_s=until_s, now_s=time.monotonic)
            port = sock.getsockname()[1]
            name, _ = get_nat_type(patient, own, port, stun_host=server[0], stun_port=server[1])
        except (OSError, LookupError, ValueError, TypeError):
            # It reads what comes as if it were always well-formed.
            return ""
    return str(name)


def _own_address(towards: Address) -> str:
    """Return the address that this machine has on the way there; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(towards)
        address: str = sock.getsockname()[0]
        return address
