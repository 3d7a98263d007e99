"""What of the network's changes is news, and how a sleep is told."""

from __future__ import annotations

from seipd.agent.changes import Change
from seipd.agent.uplink import Sleep, Uplink, WayOut, changed

HOME = WayOut(interface=2, own="192.168.1.2", router="192.168.1.1")
PHONE = WayOut(interface=3, own="10.33.0.7", router="10.33.0.1")


def uplink(way: WayOut | None, *addresses: str) -> Uplink:
    return Uplink(way=way, addresses=frozenset(addresses))


def test_another_router_or_address_of_ours_is_another_way() -> None:
    at_home = uplink(HOME, "192.168.1.2", "10.33.0.7")
    assert changed(at_home, uplink(PHONE, "10.33.0.7")) is Change.WAY
    renumbered = WayOut(interface=2, own="192.168.1.9", router="192.168.1.1")
    assert changed(at_home, uplink(renumbered, "192.168.1.9")) is Change.WAY


def test_one_address_more_is_told_and_the_same_is_no_news() -> None:
    at_home = uplink(HOME, "192.168.1.2")
    assert changed(at_home, uplink(HOME, "192.168.1.2", "2001:db8::2")) is Change.MORE
    assert changed(uplink(HOME, "192.168.1.2", "172.17.0.1"), at_home) is Change.ADDRESSES
    assert changed(at_home, uplink(HOME, "192.168.1.2")) is None


def test_without_any_way_there_is_nothing_to_do_until_one_is_back() -> None:
    at_home, cut = uplink(HOME, "192.168.1.2"), uplink(None)
    assert changed(at_home, cut) is None
    assert changed(cut, at_home) is Change.WAY
    assert changed(None, at_home) is Change.WAY
    assert changed(at_home, None) is None


def test_a_sleep_is_what_one_clock_slept_through() -> None:
    sleep = Sleep(100.0, 100.0)
    assert sleep.slept_s(101.0, 101.0) == 0.0
    assert sleep.slept_s(102.0, 102.5) == 0.0
    assert sleep.slept_s(103.0, 3_700.0) == 3_597.5
    assert sleep.slept_s(104.0, 3_701.0) == 0.0, "told once"


def test_a_stopped_machine_slept_and_a_busy_one_did_not() -> None:
    sleep = Sleep(100.0, 100.0)
    assert sleep.slept_s(112.0, 112.0) == 0.0
    assert sleep.slept_s(142.0, 142.0) == 30.0
