"""What is said to routers, byte by byte, and what of their answers is taken."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.portmap import igd, markup, natpmp, pcp
from seipd.agent.portmap.mapped import Mapped, PortMapError, checked
from services.kernel.errors import WireError

NONCE = bytes(range(12))
GATEWAY = "192.168.1.1"
AT = "http://192.168.1.1:5000/rootDesc.xml"


def test_nat_pmp_asks_as_rfc_6886_draws_it() -> None:
    assert natpmp.address_request() == b"\0\0"
    asked = natpmp.map_request(inside_port=51940, outside_port=51940, lifetime_s=7200)
    assert asked.hex() == "00010000cae4cae400001c20"


def test_nat_pmp_answers_are_read() -> None:
    outside = natpmp.decode_address(bytes.fromhex("0080000000000010cb007107"))
    assert (outside.host, outside.epoch_s, outside.result) == ("203.0.113.7", 16, 0)
    granted = natpmp.decode_grant(bytes.fromhex("0081000000000010cae4ffff00000e10"))
    assert (granted.inside_port, granted.outside_port, granted.lifetime_s) == (51940, 65535, 3600)


def test_nat_pmp_refusals_may_be_short() -> None:
    assert natpmp.decode_grant(bytes.fromhex("0081000200000010")).result == 2
    assert natpmp.decode_address(bytes.fromhex("008000030000001000000000")).result == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0080",
        "0080000000000010",
        "0080000000000010cb00710700",
        "0180000000000010cb007107",
        "0081000000000010cb007107",
        "0000000000000010cb007107",
    ],
)
def test_nat_pmp_takes_nothing_else_for_an_answer(text: str) -> None:
    with pytest.raises(WireError):
        natpmp.decode_address(bytes.fromhex(text))


def pcp_answer(**other: object) -> bytes:
    fields = {"result": 0, "nonce": NONCE, "inside": 51940, "outside": 4242, "lifetime": 1200}
    fields |= other
    head = bytes((2, 129, 0, fields["result"])) + fields["lifetime"].to_bytes(4) + bytes(16)
    mapped = fields["nonce"] + bytes((fields.get("protocol", 17), 0, 0, 0))
    mapped += fields["inside"].to_bytes(2) + fields["outside"].to_bytes(2)
    return head + mapped + bytes.fromhex("00000000000000000000ffffcb007107")


def test_pcp_asks_as_rfc_6887_draws_it() -> None:
    asked = pcp.map_request(
        own="192.168.1.2", nonce=NONCE, inside_port=51940, outside_port=51940, lifetime_s=1200
    )
    assert asked.hex() == (
        "02010000" "000004b0" "00000000000000000000ffffc0a80102"
        "000102030405060708090a0b" "11000000" "cae4" "cae4" "00000000000000000000ffff00000000"
    )  # fmt: skip


def test_pcp_answers_are_read_and_options_passed_over() -> None:
    for data in (pcp_answer(), pcp_answer() + bytes.fromhex("8000000400000000")):
        found = pcp.decode(data)
        assert (found.host, found.outside_port, found.lifetime_s) == ("203.0.113.7", 4242, 1200)
        assert (found.nonce, found.inside_port, found.result) == (NONCE, 51940, 0)


def test_a_router_that_speaks_nat_pmp_only_is_understood() -> None:
    assert pcp.decode(bytes.fromhex("0081000100000010")).result == pcp.UNSUPPORTED_VERSION
    assert pcp.decode(bytes.fromhex("01810001" + "00" * 20)).result == pcp.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pcp_answer()[:-4],
        pcp_answer() + b"\0",
        pcp_answer() + bytes(1100),
        pcp_answer(protocol=6),
        b"\2\1" + pcp_answer()[2:],
        b"\3" + pcp_answer()[1:],
    ],
)
def test_pcp_takes_nothing_else_for_an_answer(data: bytes) -> None:
    with pytest.raises(WireError):
        pcp.decode(data)


@given(st.binary(max_size=1200))
def test_any_bytes_are_a_value_or_a_wire_error(data: bytes) -> None:
    readers = (
        natpmp.decode_address,
        natpmp.decode_grant,
        pcp.decode,
        markup.read,
        lambda found: igd.location_in(found, gateway=GATEWAY),
        lambda found: igd.control_point_in(found, location=AT, gateway=GATEWAY),
        lambda found: igd.answer_in(found, "AddPortMapping"),
    )
    for read in readers:
        with contextlib.suppress(WireError):
            read(data)


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [
        ("127.0.0.1", 5000, "loopback"),
        ("::1", 5000, "loopback"),
        ("192.168.0.4", 5000, "private"),
        ("100.64.3.2", 5000, "private"),
        ("10.64.0.9", 5000, "private"),
        ("224.0.0.1", 5000, "multicast"),
        ("169.254.169.254", 5000, "link-local"),
        ("0.0.0.0", 5000, "unspecified"),  # noqa: S104 (a router's lie)
        ("203.0.113.7", 53, "low port"),
        ("203.0.113.7", 0, "low port"),
    ],
)
def test_stn_11_a_router_can_t_have_peers_send_to_somebody_else(host, port, why) -> None:
    with pytest.raises(PortMapError, match=why):
        checked(Mapped(by="PCP", host=host, port=port, lifetime_s=1200), ())


def test_a_lifetime_is_neither_an_instant_nor_for_ever() -> None:
    with pytest.raises(PortMapError, match="for 5 s only"):
        checked(Mapped(by="PCP", host="203.0.113.7", port=5000, lifetime_s=5), ())
    long = Mapped(by="PCP", host="203.0.113.7", port=5000, lifetime_s=2**32 - 1)
    assert checked(long, ()).lifetime_s == 86_400
    # A router that was switched off and on tells nobody that it has forgotten.
    assert checked(long, ()).renew_after_s == 180
    short = Mapped(by="PCP", host="203.0.113.7", port=5000, lifetime_s=120)
    assert checked(short, ()).renew_after_s == 60
