"""UPnP's Internet Gateway Device: SSDP, the description of a router, SOAP. Pure.

Whoever is in the network may answer a question to all: only what leads to the gateway itself
is followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urljoin, urlsplit
from xml.sax.saxutils import escape

from seipd.agent.portmap.markup import Element, read
from services.kernel.errors import WireError

GROUP: Final = "239.255.255.250"
PORT: Final = 1900
MAX_ANSWER_BYTES: Final = 1400
MAX_URL_CHARACTERS: Final = 512
MAX_DESCRIPTION_BYTES: Final = 1 << 16
DEVICE: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
SERVICES: Final = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
ONLY_PERMANENT: Final = 725
CONFLICTS: Final = frozenset({718, 727, 729})

_REASONS: Final = {
    401: "it does not know how",
    402: "it found the question malformed",
    501: "it could not do it",
    606: "its owner does not allow it",
    718: "the port is somebody else's",
    728: "it has no port left",
}


class RefusedBySoapError(WireError):
    """The router understood and said no; ``number`` is UPnP's."""

    default_code = "soap_fault"

    def __init__(self, number: int) -> None:
        super().__init__(f"UPnP: {_REASONS.get(number, f'error {number}')}")
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPoint:
    """Where the router takes orders, and as what."""

    url: str
    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One SOAP request."""

    url: str
    headers: dict[str, str]
    body: bytes
    action: str


def search() -> bytes:
    """Return the question for routers."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {GROUP}:{PORT}",
        'MAN: "ssdp:discover"',
        "MX: 1",
        f"ST: {DEVICE}",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii")


def location_in(answer: bytes, *, gateway: str) -> str:
    """Return where the router describes itself.

    Raises:
        WireError: it is no such answer, or leads elsewhere than to the gateway.
    """
    if len(answer) > MAX_ANSWER_BYTES:
        raise WireError("SSDP: too long")
    lines = answer.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1.1 200"):
        raise WireError("SSDP: not an answer")
    fields = {
        name.strip().lower(): value.strip()
        for name, colon, value in (line.partition(":") for line in lines[1:])
        if colon
    }
    if fields.get("st") != DEVICE:
        raise WireError("SSDP: not a router")
    return _own_url(fields.get("location", ""), gateway)


def control_point_in(description: bytes, *, location: str, gateway: str) -> ControlPoint:
    """Return where the router takes orders.

    Raises:
        WireError: it maps no ports, or leads elsewhere than to the gateway.
    """
    root = read(description)
    base = root.value("URLBase") or location
    offered = {one.value("serviceType"): one for one in root.find_all("service")}
    for service in SERVICES:
        if service in offered:
            path = offered[service].value("controlURL")
            return ControlPoint(url=_own_url(_joined(base, path), gateway), service=service)
    raise WireError("UPnP: the router maps no ports")


def outside_address(point: ControlPoint) -> Order:
    """Return the question for the outside address."""
    return _order(point, "GetExternalIPAddress", {})


def add_mapping(
    point: ControlPoint, *, own: str, inside_port: int, outside_port: int, lifetime_s: int
) -> Order:
    """Return the wish for a UDP port."""
    fields = {
        "NewRemoteHost": "",
        "NewExternalPort": str(outside_port),
        "NewProtocol": "UDP",
        "NewInternalPort": str(inside_port),
        "NewInternalClient": own,
        "NewEnabled": "1",
        "NewPortMappingDescription": "seip",
        "NewLeaseDuration": str(lifetime_s),
    }
    return _order(point, "AddPortMapping", fields)


def delete_mapping(point: ControlPoint, *, outside_port: int) -> Order:
    """Return the order to give a UDP port back."""
    fields = {"NewRemoteHost": "", "NewExternalPort": str(outside_port), "NewProtocol": "UDP"}
    return _order(point, "DeletePortMapping", fields)


def answer_in(body: bytes, action: str) -> Element:
    """Return what the router answered to an order.

    Raises:
        RefusedBySoapError: it said no.
        WireError: it is no answer to that.
    """
    root = read(body)
    found = next(root.find_all(f"{action}Response"), None)
    if found is not None:
        return found
    number = root.value("errorCode")
    if number.isascii() and number.isdigit() and len(number) <= 3:
        raise RefusedBySoapError(int(number))
    raise WireError("UPnP: not the answer to this question")


def address_in(answer: Element) -> str:
    """Return the outside address of an answer.

    Raises:
        WireError: there is none.
    """
    text = answer.value("NewExternalIPAddress")
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise WireError("UPnP: the router has no outside address") from error


def _order(point: ControlPoint, action: str, fields: dict[str, str]) -> Order:
    values = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    body = (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{point.service}">{values}</u:{action}>'
        "</s:Body></s:Envelope>\r\n"
    )
    headers = {
        "Content-Type": 'text/xml; charset="utf-8"',
        "SOAPAction": f'"{point.service}#{action}"',
    }
    return Order(url=point.url, headers=headers, body=body.encode("ascii"), action=action)


def _joined(base: str, path: str) -> str:
    try:
        return urljoin(base, path)
    except ValueError as error:
        raise WireError("UPnP: not an address") from error


def _own_url(url: str, gateway: str) -> str:
    """Return an address if it is the gateway's own."""
    if len(url) > MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise WireError("UPnP: not an address")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise WireError("UPnP: not an address") from error
    if parts.scheme != "http" or host != gateway or parts.username is not None or port < 1:
        raise WireError("UPnP: it leads elsewhere than to the gateway")
    return url
