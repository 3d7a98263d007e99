"""Whose requests are counted together where nobody says who they are."""

from __future__ import annotations

from seipd.api.origin import asker_of


def test_an_ipv4_address_is_one_stranger() -> None:
    assert asker_of("198.51.100.1") != asker_of("198.51.100.2")


def test_a_network_of_ipv6_is_one_stranger_however_many_addresses_it_has() -> None:
    assert asker_of("2001:db8::1") == asker_of("2001:db8::ffff:1") == asker_of("2001:db8::9%eth0")
    assert asker_of("2001:db8::1") != asker_of("2001:db8:0:1::1")


def test_a_socket_without_an_address_is_one_too() -> None:
    assert asker_of(None) == ""
