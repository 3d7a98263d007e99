"""Nobody is made to send to where harm is done, however the address is spelled."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.addr import default_ranges, ula_prefix
from services.kernel.errors import InputError
from services.kernel.ids import MeshId
from services.kernel.targets import (
    PRIVATE_NETWORKS,
    inner_networks,
    is_private,
    neighbourhood,
    normalised,
    why_refused,
)

MESH = MeshId("ab" * 32)
INNER = inner_networks(MESH, default_ranges())


def refused(host: str | bytes, port: int = 51940, on_link: tuple[str, ...] = ()) -> str | None:
    return why_refused(host, port, mesh_ranges=INNER, on_link=[ip_network(one) for one in on_link])


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.10", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::1", "loopback"),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "loopback"),
        ("0.0.0.0", "unspecified"),  # noqa: S104  # refused, not bound to
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("224.0.0.251", "multicast"),
        ("ff02::1", "multicast"),
        ("::ffff:224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("192.0.0.192", "reserved"),
        ("::7f00:1", "reserved"),
        ("100::1", "reserved"),
        ("64:ff9b:1::7f00:1", "reserved"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("10.64.0.1", "mesh"),
        ("10.70.1.2", "mesh"),
        ("172.16.0.10", "mesh"),
        ("::ffff:10.64.0.1", "mesh"),
        (str(ula_prefix(MESH)[77]), "mesh"),
        ("10.0.0.1", "private"),
        ("192.168.1.1", "private"),
        ("172.30.0.1", "private"),
        ("100.64.0.1", "private"),
        ("fd12::1", "private"),
        ("::ffff:192.168.1.1", "private"),
        ("64:ff9b::c0a8:101", "private"),
        ("2002:c0a8:101::1", "private"),
        ("example.org", "not an address"),
        ("fe80::1%eth0", "not an address"),
        ("2001:db8::1%eth0", "not an address"),
        ("", "not an address"),
        (b"\x7f\x00\x00\x01", "loopback"),
        (bytes(10) + b"\xff\xff\x7f\x00\x00\x01", "loopback"),
        (b"\x7f\x00\x00", "not an address"),
    ],
)
def test_stn_11_rly_06_refuses_what_is_no_peer(host: str | bytes, why: str) -> None:
    assert refused(host) == why


@pytest.mark.parametrize("port", [0, 1, 22, 53, 80, 443, 1023])
def test_stn_11_refuses_ports_of_well_known_services(port: int) -> None:
    assert refused("203.0.113.7", port) == "low port"


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_refuses_what_is_no_port(port: int) -> None:
    assert refused("203.0.113.7", port) == "not a port"


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "198.18.0.9",
        "203.0.113.7",
        "2001:db8::1",
        "2600::1",
        "64:ff9b::cb00:7107",
        b"\xcb\x00\x71\x07",
    ],
)
def test_lets_ordinary_addresses_through(host: str | bytes) -> None:
    assert refused(host, 1024) is None
    assert refused(host, 65535) is None


def test_lets_a_private_address_through_on_its_own_link_alone() -> None:
    assert refused("192.168.1.9", on_link=("192.168.1.0/24",)) is None
    assert refused("192.168.2.9", on_link=("192.168.1.0/24",)) == "private"
    assert refused("fd12::9", on_link=("fd12::/64",)) is None


def test_being_on_link_opens_nothing_else() -> None:
    assert refused("10.64.0.1", on_link=("10.0.0.0/8",)) == "mesh"
    assert refused("127.0.0.1", on_link=("127.0.0.0/8",)) == "loopback"
    assert refused("169.254.1.1", on_link=("169.254.0.0/16",)) == "link-local"
    assert refused("192.168.1.9", 22, on_link=("192.168.1.0/24",)) == "low port"


def test_a_whole_link_is_no_target() -> None:
    assert refused("192.168.1.255", on_link=("192.168.1.0/24",)) == "broadcast"
    assert refused("192.168.1.0", on_link=("192.168.1.0/24",)) == "broadcast"
    assert refused("203.0.113.255", on_link=("203.0.113.0/24",)) == "broadcast"
    assert refused("192.168.1.1", on_link=("192.168.1.0/31",)) is None


def test_who_is_seen_from_one_public_address_may_share_any_private_network() -> None:
    assert neighbourhood("203.0.113.7", "203.0.113.7") == PRIVATE_NETWORKS
    assert neighbourhood("::ffff:203.0.113.7", "203.0.113.7") == PRIVATE_NETWORKS
    assert neighbourhood("203.0.113.7", "203.0.113.8") == ()


def test_private_addresses_that_reached_the_server_reach_each_other_as_such_alone() -> None:
    assert neighbourhood("10.1.0.5", "10.2.0.6") == (ip_network("10.2.0.6/32"),)
    assert neighbourhood("203.0.113.7", "10.2.0.6") == ()
    assert neighbourhood("10.2.0.6", "203.0.113.7") == ()


@given(st.one_of(st.text(), st.binary()))
def test_any_host_is_an_address_or_an_input_error(host: str | bytes) -> None:
    try:
        address = normalised(host)
    except InputError:
        assert refused(host) == "not an address"
        return
    assert isinstance(address, IPv4Address | IPv6Address)


@given(st.ip_addresses(v=4))
def test_no_spelling_makes_a_refused_address_pass(address: IPv4Address) -> None:
    raw = int(address)
    wrapped = [
        IPv6Address(0xFFFF << 32 | raw),
        IPv6Address(0x64FF9B << 96 | raw),
        IPv6Address(0x2002 << 112 | raw << 80 | 1),
        IPv6Address(0x20010000 << 96 | (raw ^ 0xFFFFFFFF)),
    ]
    assert {normalised(one) for one in wrapped} == {address}
    assert {refused(str(one)) for one in wrapped} == {refused(str(address))}


@given(st.ip_addresses())
def test_whatever_may_be_sent_to_from_afar_is_unicast_and_not_private(
    address: IPv4Address | IPv6Address,
) -> None:
    if refused(str(address)) is None:
        target = normalised(address)
        assert not target.is_multicast
        assert not target.is_loopback
        assert not target.is_link_local
        assert not target.is_unspecified
        assert not is_private(target)
