"""Who left the mesh gets no new session by an old ticket, at a relay without a ledger."""

from __future__ import annotations

from seipd.relayd import unwelcome
from seipd.relayd.unwelcome import KEPT_S, Unwelcome
from services.edge.relay.tickets import MAX_LIFETIME_MS

KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32


def test_rly_04_a_key_that_left_stays_out_while_any_ticket_of_it_may_hold() -> None:
    now = [100.0]
    turned_away = Unwelcome(lambda: now[0])
    assert turned_away.is_welcome(KEY)
    turned_away.add(KEY)
    assert not turned_away.is_welcome(KEY)
    assert turned_away.is_welcome(OTHER)
    now[0] += MAX_LIFETIME_MS / 1000
    assert not turned_away.is_welcome(KEY)
    now[0] = 100.0 + KEPT_S
    assert turned_away.is_welcome(KEY)


def test_so_many_are_remembered(monkeypatch) -> None:
    monkeypatch.setattr(unwelcome, "MAX_KEYS", 2)
    turned_away = Unwelcome(lambda: 0.0)
    for number in range(3):
        turned_away.add(bytes([number]) * 32)
    assert turned_away.is_welcome(bytes(32))
    assert not turned_away.is_welcome(KEY)
    assert not turned_away.is_welcome(OTHER)
