"""What people see of the paths to other endpoints."""

from __future__ import annotations

import pytest

from seipd.agent.peer_commands import print_peers
from seipd.agent.peerlines import known_peers, path_line, paths_facts, paths_line, with_paths

PEER = {"node_id": "n2", "name": "e2", "address": "10.64.0.11", "trust": "proven", "why": ""}
HELD = {
    "node_id": "n2",
    "name": "e2",
    "address": "10.64.0.11",
    "path": "direct",
    "why": "",
    "phase": "carrying",
    "latency_us": 1260,
    "endpoint": "198.18.0.102:40000",
    "last_handshake_seconds": 4,
    "rx_bytes": 2048,
    "tx_bytes": 5,
}


def running(*held: dict, why_none: str = "") -> dict:
    paths = {"mode": "mesh", "is_symmetric": False, "why_none": why_none, "held": list(held)}
    return {"paths": paths}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (None, "through the server: the agent does not run"),
        (running(), "through the server: nothing was sent to it lately"),
        (running(why_none="hub mode"), "through the server: hub mode"),
        (running(HELD), "directly at 198.18.0.102:40000, 1.3 ms"),
        (
            running({**HELD, "path": "relay", "why": "no ping came through", "latency_us": None}),
            "over the relay at 198.18.0.102:40000: no ping came through",
        ),
        (
            running({**HELD, "path": "server", "why": "it is away", "latency_us": 900}),
            "through the server, 0.9 ms: it is away",
        ),
    ],
)
def test_ping_says_by_which_path_and_why(status, line):
    (peer,) = with_paths([PEER], status)
    assert path_line(peer) == f"e2 is 10.64.0.11, reached {line}"


def test_the_table_tells_path_latency_handshake_and_bytes(capsys):
    print_peers(with_paths([PEER], running(HELD)))
    heads, row = capsys.readouterr().out.splitlines()
    assert " ".join(heads.split()) == "name address path latency handshake in out trust why"
    assert " ".join(row.split()) == "e2 10.64.0.11 direct 1.3 ms 4 s 2 KiB 5 B proven"


def test_direct_paths_are_shown_while_the_server_is_silent():
    (peer,) = known_peers([], running(HELD))
    assert (peer["name"], peer["path"], peer["latency_ms"]) == ("e2", "direct", 2)


def test_a_path_to_one_that_the_server_does_not_list_is_shown_beside_the_others():
    """Of another customer, say."""
    beside = {**HELD, "node_id": "n3", "name": "x1", "address": "10.64.0.12"}
    shown = known_peers([PEER], running(HELD, beside))
    assert [(one["name"], one["path"]) for one in shown] == [("e2", "direct"), ("x1", "direct")]


def test_the_status_says_how_many_paths_there_are_or_why_none():
    assert paths_line(paths_facts(running(HELD))) == "1 direct, 0 by relays"
    assert paths_line(paths_facts(running(why_none="hub mode"))) == "all over the server: hub mode"
    assert paths_facts(None) is None
