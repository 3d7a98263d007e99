"""UPnP: which router is believed, and what is made of what it says."""

from __future__ import annotations

import pytest

from seipd.agent.portmap import igd
from seipd.agent.portmap.markup import MAX_BYTES, read
from services.kernel.errors import WireError

GATEWAY = "192.168.1.1"
AT = "http://192.168.1.1:5000/rootDesc.xml"
POINT = igd.ControlPoint(url="http://192.168.1.1:5000/ctl", service=igd.SERVICES[1])


def ssdp(location: str = AT, kind: str = igd.DEVICE, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nST: {kind}\r\nLocation: {location}\r\nEXT:\r\n\r\n".encode()


def description(control: str = "/ctl", service: str = igd.SERVICES[1], base: str = "") -> bytes:
    other = "<service><serviceType>urn:x:y:1</serviceType><controlURL>/no</controlURL></service>"
    ours = f"<serviceType>{service}</serviceType><controlURL>{control}</controlURL>"
    return (
        '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">'
        f"{base}<device><serviceList>{other}</serviceList><deviceList><device><serviceList>"
        f"<service>{ours}</service></serviceList></device></deviceList></device></root>"
    ).encode()


def answer(action: str, inside: str) -> bytes:
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<u:{action} xmlns:u="x">{inside}</u:{action}></s:Body></s:Envelope>'
    ).encode()


def fault(number: str) -> bytes:
    return answer(
        "Fault", f"<detail><UPnPError><errorCode>{number}</errorCode></UPnPError></detail>"
    )


def test_the_question_goes_to_routers() -> None:
    lines = igd.search().decode().split("\r\n")
    assert lines[0] == "M-SEARCH * HTTP/1.1"
    assert f"ST: {igd.DEVICE}" in lines
    assert lines[-2:] == ["", ""]


def test_where_the_gateway_describes_itself_is_followed() -> None:
    assert igd.location_in(ssdp(), gateway=GATEWAY) == AT


@pytest.mark.parametrize(
    "data",
    [
        ssdp("http://192.168.1.77:5000/rootDesc.xml"),
        ssdp("http://192.168.1.1@10.0.0.1/"),
        ssdp("http://user@192.168.1.1/"),
        ssdp("https://192.168.1.1/"),
        ssdp("file:///etc/passwd"),
        ssdp("http://192.168.1.1:99999/"),
        ssdp("http://[::1"),
        ssdp("http://192.168.1.1/a b"),
        ssdp("http://192.168.1.1/" + "a" * 600),
        ssdp(""),
        ssdp(kind="urn:schemas-upnp-org:device:MediaServer:1"),
        ssdp(status="404 Not Found"),
        ssdp() + bytes(1400),
        b"",
    ],
)
def test_nothing_else_is_followed(data: bytes) -> None:
    with pytest.raises(WireError):
        igd.location_in(data, gateway=GATEWAY)


@pytest.mark.parametrize("control", ["/ctl", "ctl", "http://192.168.1.1:5000/ctl"])
def test_the_service_that_maps_ports_is_found(control: str) -> None:
    found = igd.control_point_in(description(control), location=AT, gateway=GATEWAY)
    assert found == POINT


@pytest.mark.parametrize(
    "data",
    [
        description("http://10.0.0.1/ctl"),
        description("//10.0.0.1/ctl"),
        description(base="<URLBase>http://10.0.0.1/</URLBase>"),
        description(service="urn:schemas-upnp-org:service:Layer3Forwarding:1"),
        b"<root/>",
    ],
)
def test_a_description_leads_nowhere_else(data: bytes) -> None:
    with pytest.raises(WireError):
        igd.control_point_in(data, location=AT, gateway=GATEWAY)


def test_an_order_says_all_that_upnp_wants() -> None:
    order = igd.add_mapping(
        POINT, own="192.168.1.2", inside_port=51940, outside_port=4242, lifetime_s=1200
    )
    assert order.headers["SOAPAction"] == f'"{POINT.service}#AddPortMapping"'
    said = next(read(order.body).find_all("AddPortMapping"))
    assert {child.name: child.text for child in said.children} == {
        "NewRemoteHost": "",
        "NewExternalPort": "4242",
        "NewProtocol": "UDP",
        "NewInternalPort": "51940",
        "NewInternalClient": "192.168.1.2",
        "NewEnabled": "1",
        "NewPortMappingDescription": "seip",
        "NewLeaseDuration": "1200",
    }


def test_answers_and_refusals_are_told_apart() -> None:
    inside = "<NewExternalIPAddress> 203.0.113.7 </NewExternalIPAddress>"
    said = igd.answer_in(answer("GetExternalIPAddressResponse", inside), "GetExternalIPAddress")
    assert igd.address_in(said) == "203.0.113.7"
    with pytest.raises(igd.RefusedBySoapError, match="somebody else's") as caught:
        igd.answer_in(fault("718"), "AddPortMapping")
    assert caught.value.number in igd.CONFLICTS
    for odd in (fault("-1"), fault("٣"), fault("9" * 4000), fault(""), b"<a/>"):
        with pytest.raises(WireError, match="not the answer"):
            igd.answer_in(odd, "AddPortMapping")


@pytest.mark.parametrize("text", ["", "router", "203.0.113.7; rm", "1.2.3"])
def test_an_address_is_one(text: str) -> None:
    inside = f"<NewExternalIPAddress>{text}</NewExternalIPAddress>"
    said = igd.answer_in(answer("GetExternalIPAddressResponse", inside), "GetExternalIPAddress")
    with pytest.raises(WireError):
        igd.address_in(said)


@pytest.mark.parametrize(
    "data",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<!DOCTYPE a><a/>",
        b"<a>&b;</a>",
        b"<a" + b" " * MAX_BYTES + b"/>",
        b"<a>" * 40 + b"</a>" * 40,
        b"<a>" + b"<b/>" * 2500 + b"</a>",
        b"<a></b>",
        b'<?xml version="1.0" encoding="klingon"?><a/>',
        b"",
    ],
)
def test_xml_that_does_harm_is_not_read(data: bytes) -> None:
    with pytest.raises(WireError):
        read(data)
