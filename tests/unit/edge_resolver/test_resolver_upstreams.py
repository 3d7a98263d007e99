"""Whom a server asks: by its setting, by its machine, never itself."""

from __future__ import annotations

import pytest

from services.edge.resolver.upstreams import (
    Ranking,
    nameservers_in,
    not_ourselves,
    parse_upstreams,
)
from services.kernel.errors import InputError

RESOLV = """# a comment
nameserver 192.0.2.53
nameserver  2001:db8::53
nameserver what
search example.org
nameserver 192.0.2.53
nameserver
options edns0
"""


def test_the_name_servers_of_the_machine() -> None:
    assert nameservers_in(RESOLV) == (("192.0.2.53", 53), ("2001:db8::53", 53))
    assert nameservers_in("") == ()


def test_the_setting_names_them_or_nobody_or_leaves_it_to_the_machine() -> None:
    assert parse_upstreams("") is None
    assert parse_upstreams("none") == ()
    assert parse_upstreams("192.0.2.1, 192.0.2.2:5353,[2001:db8::1]") == (
        ("192.0.2.1", 53),
        ("192.0.2.2", 5353),
        ("2001:db8::1", 53),
    )


@pytest.mark.parametrize(
    "text",
    [
        "dns.example.org",
        "192.0.2.1:0",
        "192.0.2.1:22",
        "2001:db8::1",
        "0.0.0.0",  # noqa: S104 (text alone)
        "224.0.0.1",
        "a,b",
    ],
)
def test_what_is_no_name_server_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_upstreams(text)
    assert caught.value.code == "bad_upstream"


def test_a_name_server_does_not_ask_itself() -> None:
    upstreams = (("10.64.0.1", 53), ("192.0.2.1", 53))
    assert not_ourselves(upstreams, {"10.64.0.1"}) == (("192.0.2.1", 53),)


def test_who_failed_last_is_asked_last() -> None:
    one, two, three = ("192.0.2.1", 53), ("192.0.2.2", 53), ("192.0.2.3", 53)
    ranking = Ranking()
    ranking.failed(one, now_s=2.0)
    ranking.failed(two, now_s=1.0)
    assert ranking.ranked([one, two, three]) == [three, two, one]
    ranking.answered(one)
    assert ranking.ranked([one, two, three]) == [one, three, two]
