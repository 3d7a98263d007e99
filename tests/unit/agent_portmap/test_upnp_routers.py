"""UPnP with a router that is played here: one that is odd, and one that means harm."""

from __future__ import annotations

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from seipd.agent.portmap import igd, protocols
from seipd.agent.portmap.gateway import Gateway
from seipd.agent.portmap.mapped import LIFETIME_S
from seipd.agent.portmap.protocols import Upnp
from services.kernel.errors import SeipdError, TooLargeError, WireError

HOME = Gateway(host="127.0.0.1", own="127.0.0.1")
PORT = 51940
DESCRIPTION = (
    "<root><device><serviceList><service>"
    f"<serviceType>{igd.SERVICES[1]}</serviceType><controlURL>/ctl</controlURL>"
    "</service></serviceList></device></root>"
)


def soap(inside: str) -> str:
    return f'<s:Envelope xmlns:s="e"><s:Body>{inside}</s:Body></s:Envelope>'


class Router:
    """Describes itself and takes orders; a test says which it refuses, and with what."""

    def __init__(self) -> None:
        self.description = DESCRIPTION
        self.refusals: list[int] = []
        self.orders: list[tuple[str, dict[str, str]]] = []
        self.elsewhere_count = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/rootDesc.xml", self._describe)
        app.router.add_get("/moved.xml", self._move)
        app.router.add_get("/elsewhere.xml", self._elsewhere)
        app.router.add_post("/ctl", self._control)
        return app

    async def _describe(self, _: web.Request) -> web.Response:
        return web.Response(text=self.description)

    async def _move(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere.xml")

    async def _elsewhere(self, _: web.Request) -> web.Response:
        self.elsewhere_count += 1
        return web.Response(text=DESCRIPTION)

    async def _control(self, request: web.Request) -> web.Response:
        action = request.headers["SOAPAction"].rpartition("#")[2].strip('"')
        said = dict(re.findall(r"<(New\w+)>([^<]*)</", await request.text()))
        self.orders.append((action, said))
        if action == "GetExternalIPAddress":
            inside = "<NewExternalIPAddress>203.0.113.7</NewExternalIPAddress>"
            return web.Response(text=soap(f"<u:{action}Response>{inside}</u:{action}Response>"))
        if self.refusals:
            number = self.refusals.pop(0)
            return web.Response(
                status=500, text=soap(f"<s:Fault><errorCode>{number}</errorCode></s:Fault>")
            )
        return web.Response(text=soap(f"<u:{action}Response/>"))

    def asked(self, action: str) -> list[dict[str, str]]:
        return [said for name, said in self.orders if name == action]


@pytest.fixture
async def router(monkeypatch):
    played = Router()
    async with TestServer(played.app()) as server:
        played.at = str(server.make_url("/rootDesc.xml"))

        async def search(gateway, group, request, answer_in) -> str:
            text = f"HTTP/1.1 200 OK\r\nST: {igd.DEVICE}\r\nLOCATION: {played.at}\r\n\r\n"
            return answer_in(text.encode())

        monkeypatch.setattr(protocols, "search", search)
        yield played


async def test_a_port_is_mapped_for_a_time_and_given_back(router) -> None:
    upnp = Upnp(HOME)
    mapped = await upnp.map(PORT, PORT)
    assert (mapped.host, mapped.port) == ("203.0.113.7", PORT)
    (said,) = router.asked("AddPortMapping")
    assert (said["NewInternalPort"], said["NewLeaseDuration"]) == (str(PORT), str(LIFETIME_S))
    await upnp.give_back(mapped, PORT)
    (said,) = router.asked("DeletePortMapping")
    assert said["NewExternalPort"] == str(PORT)


async def test_a_router_that_maps_for_ever_only_is_asked_for_that(router) -> None:
    router.refusals = [igd.ONLY_PERMANENT]
    await Upnp(HOME).map(PORT, PORT)
    assert [said["NewLeaseDuration"] for said in router.asked("AddPortMapping")] == ["1200", "0"]


async def test_where_the_port_is_somebody_else_s_another_is_taken_and_not_for_ever(router) -> None:
    router.refusals = [718]
    mapped = await Upnp(HOME).map(PORT, PORT)
    assert mapped.port != PORT
    router.refusals = [718] * 9
    with pytest.raises(SeipdError, match="no port left"):
        await Upnp(HOME).map(PORT, PORT)
    assert len(router.asked("AddPortMapping")) == 2 + protocols.PORT_TRIES


async def test_a_refusal_is_told_in_words(router) -> None:
    router.refusals = [606]
    with pytest.raises(igd.RefusedBySoapError, match="its owner does not allow it"):
        await Upnp(HOME).map(PORT, PORT)


async def test_a_description_without_end_is_not_read(router) -> None:
    router.description = "<root>" + " " * (1 << 20)
    with pytest.raises(TooLargeError):
        await Upnp(HOME).map(PORT, PORT)


async def test_a_redirection_is_not_followed(router) -> None:
    router.at = router.at.replace("rootDesc", "moved")
    with pytest.raises(WireError):
        await Upnp(HOME).map(PORT, PORT)
    assert router.elsewhere_count == 0
    assert router.orders == []


@pytest.mark.parametrize("url", ["http://127.0.0.2:1/ctl", "http://localhost/ctl"])
async def test_an_order_goes_to_nobody_but_the_gateway(router, url: str) -> None:
    router.description = DESCRIPTION.replace("/ctl", url)
    with pytest.raises(WireError, match="leads elsewhere"):
        await Upnp(HOME).map(PORT, PORT)
