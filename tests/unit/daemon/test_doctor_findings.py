"""What ``seipd doctor`` makes of the documents that status shows."""

from __future__ import annotations

import pytest

from seipd.daemon.doctor import examine


def server(state: str, lag: int = 0) -> dict:
    return {"server_id": "server-0123456789abcdef", "state": state, "lag_records": lag}


def findings(*servers, services=()) -> list[tuple[str, str]]:
    found = examine({"services": list(services)}, list(servers), [])
    assert all(one["mend"] for one in found)
    return [(one["level"], one["what"]) for one in found]


def test_led_05_a_server_that_told_two_stories_is_an_error_with_its_evidence() -> None:
    (found,) = examine({"services": []}, [server("untrusted")], [])
    assert found["level"] == "error"
    assert "server-0123456789abcdef" in found["what"]
    assert "seipd trust peer server-0123456789abcdef --proof" in found["mend"]


def test_the_worst_comes_first() -> None:
    assert [level for level, _ in findings(server("dead"), server("untrusted"))] == [
        "error",
        "warning",
    ]


@pytest.mark.parametrize(
    ("one", "count"), [(server("alive"), 0), (server("alive", 3), 1), (server("dead", 3), 1)]
)
def test_silence_and_lag_are_warnings(one, count) -> None:
    found = findings(one)
    assert len(found) == count
    assert all(level == "warning" for level, _ in found)


@pytest.mark.parametrize(
    ("state", "level"), [("failed", "error"), ("degraded", "warning"), ("ok", None)]
)
def test_a_service_that_is_not_well(state, level) -> None:
    found = findings(services=[{"name": "gossip", "state": state, "detail": "why"}])
    assert [told for told, _ in found] == ([level] if level else [])


@pytest.mark.parametrize(
    ("seconds", "through", "count"),
    [(20, None, 0), (200, None, 1), (None, None, 1), (None, "server-00000000000000ff", 0)],
)
def test_a_server_reached_through_another_needs_no_handshake(seconds, through, count) -> None:
    one = server("alive")
    peer = {
        "name": one["server_id"],
        "last_handshake_seconds": seconds,
        "through": through,
    }
    assert len(examine({"services": []}, [one], [peer])) == count
