"""Which IPv6 addresses of servers are believed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from seipd.daemon.telling_address6 import LIFETIME_MS, RENEW_S, Address6Teller
from services.kernel.addr import backbone6, default_ranges, tunnel6
from services.kernel.errors import WireError
from services.kernel.ids import mesh_id_of
from services.mesh.facts.hosts6 import hosts6_in
from services.mesh.facts.kinds import ADDRESS6, kind_of
from services.mesh.facts.payloads import Address6Payload, decode_payload, encode_payload

MESH = mesh_id_of(bytes(32))
RANGES = default_ranges()


def fact(host: str) -> SimpleNamespace:
    return SimpleNamespace(payload=encode_payload(Address6Payload(host=host)))


@pytest.mark.parametrize("host", ["2001:db8::b", "2a01:4f8::1", "fd12:3456::1"])
def test_an_address_of_a_host_is_taken(host: str) -> None:
    kind_of(ADDRESS6).check(encode_payload(Address6Payload(host=host)))


@pytest.mark.parametrize(
    "host",
    [
        "198.51.100.1",
        "::",
        "ff02::1",
        "fe80::1",
        "::ffff:198.51.100.1",
        "64:ff9b::c633:6401",
        "2002:c633:6401::1",
        "2001:DB8::1",
        "2001:db8:0::1",
        "2001:db8::1%eth0",
        "example.org",
        "",
    ],
)
def test_what_is_no_ipv6_address_of_a_server_is_refused(host: str) -> None:
    with pytest.raises(WireError):
        decode_payload(encode_payload(Address6Payload(host=host)), Address6Payload)


def test_an_address_inside_of_the_mesh_is_passed_over() -> None:
    told = {
        "a": fact("2001:db8::a"),
        "b": fact(str(tunnel6(MESH, RANGES.gateway))),
        "c": fact(str(backbone6(MESH, RANGES.backbone[10]))),
    }
    assert hosts6_in(told, mesh_id=MESH, ranges=RANGES) == {"a": "2001:db8::a"}  # type: ignore[arg-type]


class Told:
    """Takes what is told to the others, unless it does not run yet."""

    def __init__(self) -> None:
        self.facts: list[tuple[int, bytes, int | None]] = []
        self.trouble: Exception | None = None

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.facts.append((kind, payload, lifetime_ms))


def test_the_address_is_told_at_once_and_again_before_it_is_forgotten() -> None:
    told, now = Told(), SimpleNamespace(s=0.0)
    clock = SimpleNamespace(monotonic_s=lambda: now.s, now_ms=lambda: 0)
    teller = Address6Teller(host="2001:db8::b", tell=told, clock=clock)
    told.trouble = WireError("not yet")
    teller.look()
    told.trouble = None
    for now.s in (1.0, 5.0, RENEW_S, RENEW_S + 1.0):
        teller.look()
    payload = encode_payload(Address6Payload(host="2001:db8::b"))
    assert told.facts == [(ADDRESS6, payload, LIFETIME_MS)] * 2
    assert RENEW_S * 1000 < LIFETIME_MS
