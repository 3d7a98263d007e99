"""Endpoints far from each other, each behind a way of its own that is long and loses packets."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from services.kernel import canonical
from tests.fakes.natlab import Kind, nftables
from tests.fakes.nattalk import SETTLED_S, Talk, say, until
from tests.fakes.slowwan import Way, far_lab_of
from tests.fakes.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.slowwan import FarLab

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]

KINDS = (Kind.PORT_RESTRICTED, Kind.PORT_RESTRICTED, Kind.SYMMETRIC, Kind.SYMMETRIC)
WAYS = {
    "e1": Way(delay_ms=20, jitter_ms=10, lost_percent=1, late_percent=2),
    "e2": Way(delay_ms=70, jitter_ms=20, lost_percent=4, late_percent=2),
    "e3": Way(delay_ms=75, jitter_ms=20, lost_percent=2, late_percent=2),
    "e4": Way(delay_ms=40, jitter_ms=20, lost_percent=3, late_percent=2),
}
NEAR, FAR = ("e1", "e2"), ("e3", "e4")
PATHS = {NEAR: "direct", FAR: "relay"}
WATCHED_S = 60.0
GAP_S = 2.0
AGAIN_S = 60.0
MORE = 50
RELAYS = "udp dport 9103-9359 drop; udp sport 9103-9359 drop"


@pytest.fixture(scope="module")
def lab() -> Iterator[FarLab]:
    with far_lab_of(KINDS, WAYS, servers=2) as built:
        built.bring_up()
        until(lambda: all(proved(built, name) == len(KINDS) - 1 for name in WAYS), SETTLED_S)
        yield built


@pytest.fixture(scope="module")
def talk(lab: FarLab) -> Iterator[Talk]:
    with Talk(lab) as opened:
        yield opened


def test_two_far_away_meet_soon(lab: FarLab, talk: Talk) -> None:
    for pair, path in PATHS.items():
        began_s = time.monotonic()
        assert talk.settle({pair: path})
        one, other = (WAYS[name] for name in pair)
        say(
            f"\n{path} after {time.monotonic() - began_s:.1f} s, over"
            f" {one.delay_ms + other.delay_ms} ms each way"
        )


def test_paths_on_which_packets_get_lost_are_kept(lab: FarLab, talk: Talk) -> None:
    """Also where for two seconds nothing comes through at all."""
    assert talk.settle(PATHS)
    seen: set[tuple[str, str, str]] = set()

    def is_over() -> bool:
        for one, other in PATHS:
            talk.say(one, other)
            seen.update((a, b, talk.path(a, b)["path"]) for a, b in ((one, other), (other, one)))
        return False

    until(is_over, WATCHED_S)
    with lab.changed({name: Way(lost_percent=100) for name in WAYS}):
        until(is_over, GAP_S)
    until(is_over, 2 * GAP_S)
    assert seen == {(*ends, path) for pair, path in PATHS.items() for ends in (pair, pair[::-1])}


def test_a_connection_goes_on_over_relay_server_and_direct(lab: FarLab, talk: Talk) -> None:
    one, other = NEAR
    assert talk.settle({NEAR: "direct"})
    ends = lab.plan.host(one).namespace, lab.plan.host(other).namespace
    wan = lab.sites[other].wan
    direct = f"ip daddr {wan} drop; ip saddr {wan} drop"
    with Stream(*ends, talk.addresses[other]) as stream:
        for rules, path in ((direct, "relay"), (f"{direct}; {RELAYS}", "server"), ("", "direct")):
            cut(lab, one, rules)
            began_s, known = time.monotonic(), stream.count
            assert talk.settle({NEAR: path}), path
            took_s = time.monotonic() - began_s
            before = stream.count
            assert until(lambda: stream.count > before + MORE, AGAIN_S), path  # noqa: B023
            say(f"\nby {path} after {took_s:.1f} s; {before - known} came in meanwhile")
        assert not stream.is_wrong


def test_both_ends_that_are_started_anew_at_once_find_each_other(lab: FarLab, talk: Talk) -> None:
    assert talk.settle({NEAR: "direct"})

    def restart(name: str) -> None:
        host = lab.plan.host(name)
        lab.seip(host, "down", "--wireguard-interface", host.interface)
        lab.seip(host, "up", "--wireguard-interface", host.interface)

    with ThreadPoolExecutor() as pool:
        list(pool.map(restart, NEAR))
    assert talk.settle({NEAR: "direct"})
    assert until(lambda: talk.reaches(*NEAR), AGAIN_S)


def cut(lab: FarLab, name: str, rules: str) -> None:
    """Have an endpoint's router drop what these say, and no more what others said before."""
    chain = f"type filter hook forward priority -10; {rules};" if rules else ""
    nftables(
        lab.router(name),
        f"table inet cut\ndelete table inet cut\ntable inet cut {{\nchain f {{\n{chain}\n}}\n}}\n",
    )


def proved(lab: FarLab, name: str) -> int:
    """Return how many others an endpoint's agent may meet."""
    path = lab.plan.host(name).data_root / "run" / "status.json"
    paths = canonical.decode_object(path.read_bytes())["paths"] if path.exists() else None
    return paths["peers"]["proved"] if paths else 0
