"""What the running agent tells of itself, and how it waits for a network that does not come."""

from __future__ import annotations

import itertools
import os
import stat

import pytest

from seipd.agent.telling import HURRY_S, POLL_FAST_S, POLL_S, Patience, StatusFile
from services.base.storage.files import read_private
from services.kernel import canonical


def test_the_status_is_readable_by_its_owner_and_the_newest_counts(tmp_path) -> None:
    path = tmp_path / "status.json"
    file = StatusFile(path)
    for number in (1, 2):
        file.write({"number": number})
        assert canonical.decode_object(read_private(path, max_bytes=100)) == {"number": number}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["status.json"]


def test_cli_16_a_disk_that_refuses_is_told_once_and_stops_nothing(
    tmp_path, monkeypatch, caplog
) -> None:
    file = StatusFile(tmp_path / "status.json")
    file.write({"number": 1})
    real = os.open

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    for _ in range(3):
        file.write({"number": 2})
    monkeypatch.setattr(os, "open", real)
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [
        "the status is not told: [Errno 28] No space left on device"
    ]
    file.write({"number": 3})
    assert b"3" in (tmp_path / "status.json").read_bytes()


def asked(until_s: float, connected) -> list[float]:
    """Return when a handshake is asked for anew, looking each tenth of a second."""
    patience = Patience(0.0)
    times = [step / 10 for step in range(int(until_s * 10))]
    return [now for now in times if patience.asks_anew(connected=connected(now), now_s=now)]


def test_a_lost_initiation_is_repeated_soon_and_a_slow_answer_is_waited_for() -> None:
    """An answer over a satellite takes more than a second: each new peer would throw it away."""
    times = [0.0, *asked(60, lambda _: False)]
    pauses = [later - one for one, later in itertools.pairwise(times)]
    assert pauses[:5] == pytest.approx([1, 2, 4, 8, 8], abs=0.11)
    assert max(pauses) < 8.2


def test_whoever_lost_the_tunnel_asks_again_as_at_first() -> None:
    times = asked(60, lambda now_s: 10 <= now_s < 40)
    assert [one for one in times if 10 <= one < 40] == []
    assert [one for one in times if one >= 40] == pytest.approx([41, 43, 47, 55], abs=0.5)


def test_through_a_night_without_a_network_it_looks_once_a_second() -> None:
    patience, now_s, looks = Patience(0.0), 0.0, 0
    while now_s < 3600:
        patience.asks_anew(connected=False, now_s=now_s)
        pause_s = patience.pause_s(is_settled=False, now_s=now_s)
        assert pause_s == (POLL_FAST_S if now_s < HURRY_S else POLL_S)
        now_s += pause_s
        looks += 1
    assert looks <= 3600 + HURRY_S / POLL_FAST_S
    # Once it is connected somebody may wait for the names.
    patience.asks_anew(connected=True, now_s=now_s)
    assert patience.pause_s(is_settled=False, now_s=now_s) == POLL_FAST_S
    assert patience.pause_s(is_settled=True, now_s=now_s) == POLL_S
