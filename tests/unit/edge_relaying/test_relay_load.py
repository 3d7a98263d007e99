"""What a relay says of its load: sessions or bits, whichever is more, and no jumps."""

from __future__ import annotations

from services.edge.relaying.loading import FULL, SMOOTH_S, LoadMeter


def test_sessions_fill_a_relay() -> None:
    meter = LoadMeter(max_sessions=100, capacity_kbits=1000)
    assert meter.look(sessions_count=0, carried_bytes=0, now_s=0.0) == 0
    assert meter.look(sessions_count=50, carried_bytes=0, now_s=1.0) == 500
    assert meter.look(sessions_count=200, carried_bytes=0, now_s=2.0) == FULL


def test_bits_fill_a_relay_and_go_again() -> None:
    meter = LoadMeter(max_sessions=100, capacity_kbits=1000)
    meter.look(sessions_count=1, carried_bytes=0, now_s=0.0)
    carried = 0
    for second in range(1, 200):
        carried += 100_000
        load = meter.look(sessions_count=1, carried_bytes=carried, now_s=float(second))
    assert 780 <= load <= 800
    assert meter.look(sessions_count=1, carried_bytes=carried, now_s=200.0 + SMOOTH_S) == 10


def test_a_restart_of_the_count_is_no_negative_load() -> None:
    meter = LoadMeter(max_sessions=100, capacity_kbits=1000)
    meter.look(sessions_count=1, carried_bytes=10**9, now_s=0.0)
    assert meter.look(sessions_count=1, carried_bytes=0, now_s=10.0) == 10
