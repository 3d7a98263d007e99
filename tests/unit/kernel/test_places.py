"""Places as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.errors import InputError
from services.kernel.places import family_of, parse_place, place_text


@given(st.ip_addresses(), st.integers(1, 65535))
def test_what_is_written_is_read(address: object, port: int) -> None:
    host = str(address)
    if "%" not in host:
        assert parse_place(place_text(host, port)) == (host, port)


@given(st.text(max_size=40))
def test_any_text_is_a_place_in_its_one_spelling_or_refused(text: str) -> None:
    try:
        host, port = parse_place(text)
    except InputError:
        return
    assert place_text(host, port) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "198.51.100.1",
        "198.51.100.1:",
        "198.51.100.1:0",
        "198.51.100.1:080",
        "198.51.100.1:65536",
        "198.51.100.1:+1",
        "198.51.100.1:１",  # noqa: RUF001 (a digit that is none)
        "198.51.100.01:1",
        "[198.51.100.1]:1",
        "2001:db8::1:9100",
        "[2001:db8::1]",
        "[2001:db8::1:9100",
        "[2001:DB8::1]:9100",
        "[2001:db8:0::1]:9100",
        "[fe80::1%eth0]:9100",
        "example.org:9100",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_place(text)


def test_the_family_is_told_by_the_colons() -> None:
    assert (family_of("198.51.100.1"), family_of("::1")) == (4, 6)
