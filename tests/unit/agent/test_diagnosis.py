"""What the doctor says, for each way in which a network can be broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seipd.agent.background import is_connected
from seipd.agent.diagnosis import (
    ERROR,
    NOTE,
    PeerFacts,
    Reach,
    is_bad,
    outside_findings,
    outside_line,
    overlap_findings,
    peer_findings,
    reach_findings,
)

WELL = Reach(
    endpoint="198.51.100.7:51940",
    has_way=True,
    answers_tcp=True,
    answers_udp=True,
    clock_ahead_ms=12,
)
PEER = PeerFacts(name="e2", trust="proven", why_trust="", path="direct", why_path="", answers=True)
UNMAPPED = {"mapped": None, "why": "UPnP: no router answers"}


@pytest.mark.parametrize(
    ("reach", "code", "said"),
    [
        (replace(WELL, has_way=False), "no_route", "no route to the server"),
        (replace(WELL, answers_udp=False), "udp_blocked", "UDP is blocked on the way"),
        (WELL, "wireguard_silent", "answers by UDP, but not its WireGuard"),
        (
            replace(WELL, answers_udp=False, answers_tcp=False),
            "server_silent",
            "neither by UDP nor by TCP",
        ),
    ],
)
@pytest.mark.parametrize(
    ("age_s", "since"), [(None, "never was a handshake"), (181, "is 181 s ago")]
)
def test_without_a_tunnel_the_nearest_cause_is_told(reach, code, said, age_s, since) -> None:
    (finding,) = reach_findings(reach, age_s)
    assert finding.code == code
    assert said in finding.what
    assert since in finding.what
    assert "198.51.100.7:51940" in finding.what
    assert finding.mend


def test_a_sign_in_page_in_the_servers_place_is_no_answer_of_the_server() -> None:
    (finding,) = reach_findings(replace(WELL, answers_udp=False, is_foreign=True), None)
    assert finding.code == "intercepted"
    assert "sign in" in finding.mend
    assert reach_findings(replace(WELL, is_foreign=True), 20) == [], "the tunnel is there"


@pytest.mark.parametrize(
    ("near", "levels"),
    [
        (["192.168.1.0/24", "10.0.0.0/8", "fe80::/64"], []),
        (["10.65.0.0/16"], [NOTE]),
        (["10.64.0.0/24", "10.65.0.0/16", "fd00::/80"], [ERROR, NOTE, NOTE]),
    ],
)
def test_a_network_with_the_meshs_own_addresses_is_told(near, levels) -> None:
    mesh = {"allowed_ips": ["10.64.0.0/10", "fd00::/64"], "gateway": "10.64.0.1"}
    found = overlap_findings(near, mesh)
    assert [one.level for one in found] == levels
    for one, network in zip(found, near, strict=False):
        assert network in one.what


def test_a_tunnel_that_fell_silent_is_told_before_its_handshake_is_old() -> None:
    blocked = replace(WELL, answers_udp=False)
    (finding,) = reach_findings(blocked, 31, silent_s=25)
    assert finding.code == "udp_blocked"
    assert "nothing came from 198.51.100.7:51940 for 25 s" in finding.what
    assert reach_findings(blocked, 31, silent_s=8) == []


@pytest.mark.parametrize(
    ("age_s", "silent_s", "expected"),
    [(31, 4, True), (31, 25, False), (None, 0, False), (181, 4, False)],
)
def test_who_hears_nothing_is_not_connected(age_s, silent_s, expected) -> None:
    told = {"last_handshake_seconds": age_s, "silent_seconds": silent_s}
    assert is_connected(told) is expected


def test_with_a_tunnel_what_else_is_silent_is_no_fault() -> None:
    # A server may serve no STUN, and a network block TCP.
    assert reach_findings(replace(WELL, answers_udp=False, answers_tcp=False), 20) == []


@pytest.mark.parametrize(
    ("ahead_ms", "said"), [(90_000, "90 s ahead of"), (-3_600_000, "3600 s behind")]
)
def test_a_wrong_clock_is_told_with_and_without_a_tunnel(ahead_ms, said) -> None:
    wrong = replace(WELL, clock_ahead_ms=ahead_ms)
    (finding,) = reach_findings(wrong, 20)
    assert finding.code == "clock"
    assert said in finding.what
    assert [one.code for one in reach_findings(wrong, None)] == ["wireguard_silent", "clock"]


def test_a_router_that_gives_each_destination_a_port_is_a_note_unless_one_is_mapped() -> None:
    behind = replace(WELL, is_symmetric=True)
    (finding,) = outside_findings(behind, UNMAPPED)
    assert (finding.level, finding.code) == (NOTE, "symmetric_nat")
    assert "UPnP: no router answers" in finding.mend
    assert outside_findings(behind, {"mapped": {"port": 4242}, "why": ""}) == []
    assert outside_findings(WELL, UNMAPPED) == []
    assert not is_bad([finding]), "it works, by a relay"


def test_the_status_says_which_port_leads_here_or_why_none() -> None:
    held = {"by": "PCP", "host": "203.0.113.7", "port": 4242}
    assert outside_line({"mapped": held, "why": ""}) == "203.0.113.7:4242 leads here, by PCP"
    assert outside_line(UNMAPPED) == "opens no port: UPnP: no router answers"


@pytest.mark.parametrize(
    ("path", "why", "said"),
    [
        ("direct", "", "e2 is reached directly"),
        ("relay", "both routers are symmetric", "over a relay, which sees only ciphertext: both"),
        ("server", "it is away, or a stock client", "over the server: it is away, or a stock"),
    ],
)
def test_each_path_to_a_peer_is_told_with_its_reason(path, why, said) -> None:
    (finding,) = peer_findings(replace(PEER, path=path, why_path=why))
    assert said in finding.what
    assert not is_bad([finding])


def test_a_peer_that_does_not_answer_is_wrong_whatever_the_path() -> None:
    silent, path = peer_findings(replace(PEER, answers=False, path="server", why_path="policy"))
    assert silent.code == "peer_silent"
    assert "policy" in path.what
    assert is_bad([silent, path])


def test_a_false_peer_is_wrong_and_an_unproved_one_a_note() -> None:
    false, _ = peer_findings(replace(PEER, trust="refused", why_trust="another key"))
    assert false.code == "peer_false"
    assert "another key" in false.what
    waiting, _ = peer_findings(replace(PEER, trust="waiting", why_trust="too few signers"))
    assert (waiting.level, waiting.code) == (NOTE, "peer_unproved")
