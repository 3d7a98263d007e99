"""The three ways to ask a router for a port, each alike: map, and give back."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Protocol

from seipd.agent.portmap import igd, natpmp, pcp
from seipd.agent.portmap.asking import ask, search
from seipd.agent.portmap.mapped import LIFETIME_S, Mapped, PortMapError
from services.kernel.errors import SeipdError, WireError
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from seipd.agent.portmap.gateway import Gateway
    from seipd.agent.portmap.igd import ControlPoint, Order
    from seipd.agent.portmap.markup import Element

HTTP_TIMEOUT_S: Final = 3.0
PORT_TRIES: Final = 4
FIRST_DYNAMIC_PORT: Final = 49_152


class Way(Protocol):
    """One protocol, spoken with one router about one port of this machine."""

    name: str

    async def map(self, port: int, wanted: int) -> Mapped:
        """Have a UDP port lead to ``port`` here: ``wanted`` if that is free. Again to renew.

        Raises:
            SeipdError: it does not work this way.
        """

    async def give_back(self, mapped: Mapped, port: int) -> None:
        """Have it lead here no more.

        Raises:
            SeipdError: the router does not say that it did.
        """


class Pcp:
    """The Port Control Protocol."""

    name = "PCP"

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._nonce = secrets.token_bytes(pcp.NONCE_BYTES)

    async def map(self, port: int, wanted: int) -> Mapped:
        """See Way.

        Raises:
            PortMapError: the router is silent or refuses.
        """
        granted = await self._ask(port, wanted, LIFETIME_S)
        return Mapped(
            by=self.name,
            host=granted.host,
            port=granted.outside_port,
            lifetime_s=granted.lifetime_s,
        )

    async def give_back(self, mapped: Mapped, port: int) -> None:
        """See Way.

        Raises:
            PortMapError: the router is silent or refuses.
        """
        await self._ask(port, 0, 0)

    async def _ask(self, port: int, wanted: int, lifetime_s: int) -> pcp.Granted:
        request = pcp.map_request(
            own=self._gateway.own,
            nonce=self._nonce,
            inside_port=port,
            outside_port=wanted,
            lifetime_s=lifetime_s,
        )

        def answer_in(data: bytes) -> pcp.Granted | None:
            found = pcp.decode(data)
            is_ours = found.nonce == self._nonce and found.inside_port == port
            return found if is_ours or found.result == pcp.UNSUPPORTED_VERSION else None

        granted = await ask(self._gateway, natpmp.PORT, request, answer_in)
        _require_granted(granted.result, pcp.REASONS)
        return granted


class NatPmp:
    """NAT-PMP: what PCP grew out of; it tells the outside address on another question."""

    name = "NAT-PMP"

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def map(self, port: int, wanted: int) -> Mapped:
        """See Way.

        Raises:
            PortMapError: the router is silent or refuses.
        """
        outside = await ask(
            self._gateway, natpmp.PORT, natpmp.address_request(), natpmp.decode_address
        )
        _require_granted(outside.result, natpmp.REASONS)
        granted = await self._ask(port, wanted, LIFETIME_S)
        return Mapped(
            by=self.name,
            host=outside.host,
            port=granted.outside_port,
            lifetime_s=granted.lifetime_s,
        )

    async def give_back(self, mapped: Mapped, port: int) -> None:
        """See Way.

        Raises:
            PortMapError: the router is silent or refuses.
        """
        await self._ask(port, 0, 0)

    async def _ask(self, port: int, wanted: int, lifetime_s: int) -> natpmp.Granted:
        request = natpmp.map_request(inside_port=port, outside_port=wanted, lifetime_s=lifetime_s)

        def answer_in(data: bytes) -> natpmp.Granted | None:
            found = natpmp.decode_grant(data)
            return found if found.inside_port == port or found.result else None

        granted = await ask(self._gateway, natpmp.PORT, request, answer_in)
        _require_granted(granted.result, natpmp.REASONS)
        return granted


class Upnp:
    """UPnP's Internet Gateway Device."""

    name = "UPnP"

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._point: ControlPoint | None = None

    async def map(self, port: int, wanted: int) -> Mapped:
        """See Way.

        Raises:
            PortMapError: no router answers.
            SeipdError: what it refused with.
        """
        async with self._client() as client:
            self._point = self._point or await self._found(client)
            answer = await _say(client, igd.outside_address(self._point))
            host = igd.address_in(answer)
            outside_port = await self._add(client, self._point, port, wanted)
        return Mapped(by=self.name, host=host, port=outside_port, lifetime_s=LIFETIME_S)

    async def give_back(self, mapped: Mapped, port: int) -> None:
        """See Way.

        Raises:
            SeipdError: what the router refused with.
        """
        if self._point is not None:
            async with self._client() as client:
                await _say(client, igd.delete_mapping(self._point, outside_port=mapped.port))

    async def _found(self, client: HttpClient) -> ControlPoint:
        host = self._gateway.host
        location = await search(
            self._gateway,
            (igd.GROUP, igd.PORT),
            igd.search(),
            lambda data: igd.location_in(data, gateway=host),
        )
        answer = await client.fetch(
            "GET", location, timeout_s=HTTP_TIMEOUT_S, max_bytes=igd.MAX_DESCRIPTION_BYTES
        )
        return igd.control_point_in(answer.body, location=location, gateway=host)

    async def _add(self, client: HttpClient, point: ControlPoint, port: int, wanted: int) -> int:
        """Take the port that is wanted or, where it is somebody else's, another."""
        lifetime_s = LIFETIME_S
        for _ in range(PORT_TRIES):
            order = igd.add_mapping(
                point,
                own=self._gateway.own,
                inside_port=port,
                outside_port=wanted,
                lifetime_s=lifetime_s,
            )
            try:
                await _say(client, order)
            except igd.RefusedBySoapError as error:
                if error.number == igd.ONLY_PERMANENT:
                    lifetime_s = 0
                elif error.number in igd.CONFLICTS:
                    wanted = FIRST_DYNAMIC_PORT + secrets.randbelow(65_536 - FIRST_DYNAMIC_PORT)
                else:
                    raise
            else:
                return wanted
        raise PortMapError("the router has no port left")

    def _client(self) -> HttpClient:
        def is_gateway(address: IPv4Address | IPv6Address) -> bool:
            return str(address) == self._gateway.host

        return HttpClient(may_reach=is_gateway)


async def _say(client: HttpClient, order: Order) -> Element:
    answer = await client.fetch(
        "POST",
        order.url,
        body=order.body,
        headers=order.headers,
        timeout_s=HTTP_TIMEOUT_S,
        max_bytes=igd.MAX_DESCRIPTION_BYTES,
    )
    try:
        return igd.answer_in(answer.body, order.action)
    except WireError as error:
        if isinstance(error, igd.RefusedBySoapError):
            raise
        raise SeipdError(f"UPnP: the router answers with status {answer.status}") from error


def _require_granted(result: int, reasons: dict[int, str]) -> None:
    if result:
        raise PortMapError(f"the router opens no port: {reasons.get(result, f'error {result}')}")
