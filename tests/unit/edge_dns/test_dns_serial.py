"""DNS-17: the serial of the zone never goes back, whatever clocks and feeds do."""

from __future__ import annotations

import pytest

from services.edge.dns.serials import Serials


def test_dns_17_the_serial_moves_with_the_ledger_and_never_back(tmp_path) -> None:
    held = [10]
    serials = Serials(count=lambda: held[0], file=tmp_path / "dns" / "serial")
    told = []
    for count in (10, 11, 15, 3, 12, 16):
        held[0] = count
        serials.moved()
        told.append(serials.current())
    assert told == [10, 11, 15, 15, 15, 16]


def test_dns_17_nor_over_a_restart_that_lost_records(tmp_path) -> None:
    file = tmp_path / "dns" / "serial"
    Serials(count=lambda: 500, file=file).save()
    after = Serials(count=lambda: 20, file=file)
    assert after.current() == 500
    Serials(count=lambda: 700, file=file).save()
    assert Serials(count=lambda: 0, file=file).current() == 700


def test_dns_17_it_wraps_and_goes_on(tmp_path) -> None:
    held = [2**32 - 1]
    serials = Serials(count=lambda: held[0], file=tmp_path / "serial")
    assert serials.current() == 2**32 - 1
    held[0] = 2**32 + 4
    serials.moved()
    assert serials.current() == 4
    serials.save()
    assert Serials(count=lambda: 7, file=tmp_path / "serial").current() == 4


def test_servers_that_hold_the_same_say_the_same(tmp_path) -> None:
    both = [Serials(count=lambda: 33, file=tmp_path / name).current() for name in ("a", "b")]
    assert both == [33, 33]


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", b"-1", b"1" * 100])
def test_a_damaged_file_is_as_none(tmp_path, content: bytes) -> None:
    file = tmp_path / "serial"
    file.write_bytes(content)
    assert Serials(count=lambda: 5, file=file).current() == 5


def test_what_is_asked_for_often_is_counted_once(tmp_path) -> None:
    counted = []

    def count() -> int:
        counted.append(1)
        return 5

    serials = Serials(count=count, file=tmp_path / "serial")
    for _ in range(100):
        serials.current()
    assert len(counted) == 1
