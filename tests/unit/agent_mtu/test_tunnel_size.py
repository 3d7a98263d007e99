"""Which MTU the tunnel has by the way to the server, and when it changes."""

from __future__ import annotations

import pytest

from seipd.agent.mtu.deciding import TunnelSize, mtu_line
from seipd.agent.uplink import WayOut
from services.edge.wireguard.mtu import WaySize, tunnel_mtu

HOME = WayOut(interface=2, own="192.168.1.2", router="192.168.1.1")
PHONE = WayOut(interface=3, own="10.33.0.7", router="10.33.0.1")


@pytest.mark.parametrize(
    ("way_bytes", "mtu"),
    [
        (1500, 1420),
        (1492, 1412),  # PPPoE
        (1460, 1380),  # DS-Lite
        (1400, 1320),
        (1360, 1280),
        (1280, 1280),  # less than 1280 has no IPv6: WireGuard's packets go in two pieces
        (9000, 1420),
        (65536, 1420),
        (None, 1420),
    ],
)
def test_it_is_what_the_way_takes_less_what_wireguard_adds(way_bytes, mtu) -> None:
    assert tunnel_mtu(way_bytes) == mtu


def test_the_route_counts_where_it_is_smaller_than_the_link() -> None:
    assert WaySize(link_bytes=1500, route_bytes=1400).bytes == 1400
    assert WaySize(link_bytes=1492, route_bytes=9000).bytes == 1492
    assert WaySize(link_bytes=1492).bytes == 1492


def test_another_network_has_another_mtu_and_no_network_has_that_of_before() -> None:
    size = TunnelSize()
    assert size.mtu == 1420
    size.note_way(PHONE, WaySize(link_bytes=1400))
    assert size.mtu == 1320
    size.note_way(None, None)
    assert size.mtu == 1320
    size.note_way(HOME, WaySize(link_bytes=1500))
    assert size.mtu == 1420


def test_what_a_router_said_is_not_forgotten_when_the_kernel_forgets_it() -> None:
    size = TunnelSize()
    size.note_way(HOME, WaySize(link_bytes=1500))
    size.note_way(HOME, WaySize(link_bytes=1500, route_bytes=1400))
    assert size.mtu == 1320
    size.note_way(HOME, WaySize(link_bytes=1500))
    assert size.mtu == 1320
    size.note_way(HOME, WaySize(link_bytes=1492))
    assert size.mtu == 1412, "somebody set the interface"


def test_an_mtu_that_was_chosen_stays() -> None:
    size = TunnelSize(1300)
    size.note_way(HOME, WaySize(link_bytes=1400))
    assert size.mtu == 1300


def test_the_status_says_why_it_is_not_the_usual_one() -> None:
    size = TunnelSize()
    size.note_way(HOME, WaySize(link_bytes=1500))
    assert mtu_line(size.facts()) == "1420"
    size.note_way(PHONE, WaySize(link_bytes=1492))
    assert mtu_line(size.facts()) == "1412: the way to the server takes packets of 1492 bytes"
    assert mtu_line(TunnelSize(1300).facts()) == "1300: as it was told"
