"""Where this endpoint may be reached: its own addresses, what STUN says, what its router opened.

Asked through WireGuard's own port every 25 seconds, which also keeps the router's mapping, and at
once when the network is another one. One server is asked at two of its ports: a router that shows
them two of its own gives each destination another, and what one sees is of no use to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Final

from seipd.agent.paths.rawport import Kind
from services.edge.punch.messages import Candidate, CandidateKind, candidate
from services.edge.stun.asking import Inquiry
from services.edge.wireguard.links import netlink
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from ipaddress import IPv4Interface, IPv6Interface

    from seipd.agent.paths.rawport import RawPort
    from services.edge.wireguard.model import Endpoint
    from services.runtime.udp import Address

    Interface = IPv4Interface | IPv6Interface

logger = logging.getLogger(__name__)

REFRESH_S: Final = 25.0
QUESTIONS_S: Final = (0.2, 0.4, 0.8)
MAX_LOCAL: Final = 8

_GLOBAL_SCOPE: Final = 0
_NOT_USED: Final = 0x08 | 0x20 | 0x40
"""IFA_F_DADFAILED, DEPRECATED, TENTATIVE of linux/if_addr.h."""


class Places:
    """Finds the candidates, and tells of them."""

    def __init__(
        self,
        *,
        port: RawPort,
        interface: str,
        servers: Callable[[], Iterable[str]],
        ports: Callable[[], Collection[int]],
        mapped: Callable[[], Endpoint | None],
        told: Callable[[Sequence[Candidate], bool], None],
    ) -> None:
        """Keep what is needed.

        Args:
            port: WireGuard's.
            interface: the tunnel's, whose addresses do not count.
            servers: the addresses of servers to ask.
            ports: where to ask them.
            mapped: what the router opened.
            told: is told the candidates, best first, and whether the router is a symmetric one.
        """
        self._port = port
        self._interface = interface
        self._servers = servers
        self._ports = ports
        self._mapped = mapped
        self._told = told
        self._inquiries: list[Inquiry] = []
        self._changed = asyncio.Event()
        self._seen: dict[int, Endpoint] = {}
        self._local: list[Interface] = []
        self.is_symmetric = False

    @property
    def networks(self) -> list[Interface]:
        """The addresses of this machine with the networks that they lie in."""
        return self._local

    def hurry(self) -> None:
        """Look again at once."""
        self._changed.set()

    def changed(self) -> None:
        """Look again at once; what was seen from another network counts no more."""
        self._seen = {}
        self.hurry()

    async def run(self) -> None:
        """Look until cancelled."""
        self._port.attach(Kind.STUN, self._heard)
        while True:
            self._changed.clear()
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._changed.wait()

    async def look(self) -> None:
        """Find out, and tell: what is known at once, the rest when it is there."""
        try:
            self._local = await local_addresses(self._interface)
        except SeipdError as error:
            logger.warning("this machine's addresses are not known: %s", error)
        self._tell()
        await self._ask()
        self._tell()

    async def _ask(self) -> None:
        hosts = list(dict.fromkeys(self._servers()))
        families = ([one for one in hosts if ":" not in one], [one for one in hosts if ":" in one])
        self._inquiries = [
            Inquiry(
                [(host, port) for host in listed for port in self._ports()],
                token=secrets.token_bytes,
            )
            for listed in families
        ]
        for pause_s in QUESTIONS_S:
            for inquiry in self._inquiries:
                for question, server in inquiry.questions():
                    self._port.send(question, server)
            await asyncio.sleep(pause_s)
            if all(inquiry.is_done for inquiry in self._inquiries):
                break
        for family, inquiry in enumerate(self._inquiries):
            found = inquiry.seen()
            if found is not None:
                # Without an answer what was seen before stays: answers get lost, too.
                self._seen[family] = (found.host, found.port)
                self.is_symmetric = found.is_symmetric if family == 0 else self.is_symmetric

    def _heard(self, data: bytes, source: Address) -> None:
        for inquiry in self._inquiries:
            inquiry.heard(data, source)

    def _tell(self) -> None:
        found = candidates_of(
            self._local, self._port.port, seen=self._seen.values(), mapped=self._mapped()
        )
        self._told(found, self.is_symmetric)


def candidates_of(
    local: Iterable[Interface], port: int, *, seen: Iterable[Endpoint], mapped: Endpoint | None
) -> list[Candidate]:
    """Return the candidates, best first. Pure."""
    own = sorted(local, key=lambda one: -one.version)[:MAX_LOCAL]
    found = [candidate(CandidateKind.LOCAL, str(one.ip), port) for one in own]
    if mapped is not None:
        found.append(candidate(CandidateKind.PORT_MAPPED, *mapped))
    return [*found, *(candidate(CandidateKind.STUN, *one) for one in seen)]


async def local_addresses(interface: str) -> list[Interface]:
    """Return the addresses of this machine but for one interface's, each with its network.

    Raises:
        SeipdError: netlink does not answer.
    """
    async with netlink() as socket:
        ours = {
            message["index"]
            async for message in await socket.link("dump")
            if message.get("ifname") == interface
        }
        return [
            ip_interface(f"{message.get('address')}/{message['prefixlen']}")
            async for message in await socket.addr("dump")
            if message["index"] not in ours
            and message["scope"] == _GLOBAL_SCOPE
            and not message["flags"] & _NOT_USED
        ]
