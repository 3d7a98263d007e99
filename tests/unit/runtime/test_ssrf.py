"""Which addresses are those of hosts on the public Internet, and which only look so."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.ssrf import address_in, is_public

INNER = [
    "0.0.0.0",  # noqa: S104 (to be refused)
    "10.64.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.10",
    "172.31.255.255",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.5",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "ff02::1",
]


@pytest.mark.parametrize("text", INNER)
def test_whk_01_what_is_special_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "223.255.255.254", "2606:4700::1111"])
def test_hosts_of_the_internet_are_public(text: str) -> None:
    assert is_public(ip_address(text))


@given(st.integers(0, 2**32 - 1))
def test_whk_01_no_ipv4_address_is_public_for_being_wrapped_in_an_ipv6_one(number: int) -> None:
    inside = IPv4Address(number)
    assert not (inside.is_private and is_public(inside))
    low = int(inside)
    for prefix in (0, 0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96):
        assert not is_public(IPv6Address(prefix | low))
    assert not is_public(IPv6Address(0x2002 << 112 | low << 80))


def test_a_zone_is_no_part_of_an_address_and_a_name_is_none() -> None:
    assert address_in("fe80::1%eth0") == IPv6Address("fe80::1")
    assert address_in("localhost") is None
