"""Cookies: RFC 9018's own examples, and who has which."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from services.edge.dns.cookies import LIFETIME_S, RENEW_AFTER_S, SECRET_LIFETIME_S, Cookies

NOW_S = 1559731985
ADDRESS = ip_address("198.51.100.100").packed
CLIENT = bytes.fromhex("2464c4abcf10c957")


def with_secret(text: str, *, now_s: int = NOW_S) -> Cookies:
    return Cookies(lambda size: bytes.fromhex(text), now_s=now_s)


# RFC 9018, appendix A.
@pytest.mark.parametrize(
    ("secret", "client", "server", "address", "now_s", "made"),
    [
        (
            "e5e973e5a6b2a43f48e7dc849e37bfcf", "2464c4abcf10c957", "", "198.51.100.100",
            1559731985, "010000005cf79f111f8130c3eee29480",
        ),
        (
            "e5e973e5a6b2a43f48e7dc849e37bfcf", "2464c4abcf10c957",
            "010000005cf79f111f8130c3eee29480", "198.51.100.100",
            1559734385, "010000005cf7a871d4a564a1442aca77",
        ),
        (
            "e5e973e5a6b2a43f48e7dc849e37bfcf", "fc93fc62807ddb86",
            "01abcdef5cf78f71a314227b6679ebf5", "203.0.113.203",
            1559734700, "010000005cf7a9acf73a7810aca2381e",
        ),
        (
            "445536bcd2513298075a5d379663c962", "22681ab97d52c298", "",
            "2001:db8:220:1:59de:d0f4:8769:82b8",
            1559741961, "010000005cf7c609a6bb79d16625507a",
        ),
    ],
)  # fmt: skip
def test_the_examples_of_the_rfc(secret, client, server, address, now_s, made) -> None:
    cookies = with_secret(secret)
    packed, raw = ip_address(address).packed, bytes.fromhex(client)
    renewed = cookies.renewed(raw, bytes.fromhex(server), packed, now_s=now_s)
    assert renewed.hex() == made
    if server:
        given_s = int(server[8:16], 16)
        assert cookies.is_good(raw, bytes.fromhex(server), packed, now_s=given_s)
    assert cookies.is_good(raw, renewed, packed, now_s=now_s)


def test_a_cookie_is_good_at_its_address_for_its_client_and_for_an_hour() -> None:
    cookies = Cookies(random.Random(1).randbytes, now_s=NOW_S)  # noqa: S311
    made = cookies.renewed(CLIENT, b"", ADDRESS, now_s=NOW_S)
    assert cookies.is_good(CLIENT, made, ADDRESS, now_s=NOW_S + LIFETIME_S)
    assert not cookies.is_good(CLIENT, made, ADDRESS, now_s=NOW_S + LIFETIME_S + 1)
    assert not cookies.is_good(CLIENT, made, ADDRESS, now_s=NOW_S - 301)
    assert not cookies.is_good(CLIENT, made, ip_address("198.51.100.101").packed, now_s=NOW_S)
    assert not cookies.is_good(bytes(8), made, ADDRESS, now_s=NOW_S)
    for size in (0, 8, 15, 17, 32):
        assert not cookies.is_good(CLIENT, (made * 2)[:size], ADDRESS, now_s=NOW_S)
    other = Cookies(random.Random(2).randbytes, now_s=NOW_S)  # noqa: S311
    assert not other.is_good(CLIENT, made, ADDRESS, now_s=NOW_S)


def test_a_young_cookie_is_given_again() -> None:
    cookies = Cookies(random.Random(1).randbytes, now_s=NOW_S)  # noqa: S311
    made = cookies.renewed(CLIENT, b"", ADDRESS, now_s=NOW_S)
    assert cookies.renewed(CLIENT, made, ADDRESS, now_s=NOW_S + RENEW_AFTER_S) == made
    assert cookies.renewed(CLIENT, made, ADDRESS, now_s=NOW_S + RENEW_AFTER_S + 1) != made


def test_a_cookie_outlives_a_new_secret_once() -> None:
    cookies = Cookies(random.Random(1).randbytes, now_s=NOW_S)  # noqa: S311
    late_s = NOW_S + SECRET_LIFETIME_S - 10
    made = cookies.renewed(CLIENT, b"", ADDRESS, now_s=late_s)
    assert cookies.is_good(CLIENT, made, ADDRESS, now_s=late_s + 60)
    assert not cookies.is_good(CLIENT, made, ADDRESS, now_s=late_s + SECRET_LIFETIME_S)
