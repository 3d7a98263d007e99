"""Holes that real agents punch through real routers, and what a hostile one can't have sent."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from services.kernel import canonical
from services.kernel.errors import SeipdError
from tests.fakes.namespaces import udp_in
from tests.fakes.natlab import Kind, nat_lab_of
from tests.fakes.rendezvous_ends import Client
from tests.fakes.sniffing import Sniffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fakes.natlab import NatLab

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]

BOTH = ("e1", "e2")
PORT = 40_000
VICTIM = "198.18.0.199"
HOSTILE = (
    "127.0.0.1|51940",
    "169.254.169.254|8080",
    "10.64.0.1|51941",
    "10.1.2.3|5000",
    "192.168.1.1|5000",
    "224.0.0.251|5353",
    f"{VICTIM}|22",
)
MOST_PER_TARGET = 5
MOST_PORTS = 4
ROUND_S = 2.0
WATCHED_S = 5.0
SMALL_BYTES = 200
UPLINKS = ("eth0", "lo")
TRANSPORT = b"\x04\x00\x00\x00"


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    """e1 and e2 sit behind routers and are at two servers; e3 is on the WAN."""
    with nat_lab_of((Kind.PORT_RESTRICTED, Kind.PORT_RESTRICTED, Kind.OPEN), servers=2) as built:
        built.bring_up()
        until(lambda: all(paths_of(built, name)["peers"]["proved"] == 2 for name in BOTH), 120)
        yield built


def until(true: Callable[[], bool], within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.25)


def paths_of(lab: NatLab, name: str) -> dict[str, Any]:
    """Return what the running agent says of its paths."""
    try:
        data = (lab.plan.host(name).data_root / "run" / "status.json").read_bytes()
        paths: dict[str, Any] = canonical.decode_object(data)["paths"]
    except (OSError, SeipdError):
        return {"peers": {"proved": 0}, "held": []}
    return paths


def path_to(lab: NatLab, name: str, other: str) -> str:
    held = {one["name"]: one["path"] for one in paths_of(lab, name)["held"]}
    return str(held.get(other, "server"))


def test_a_direct_tunnel_through_two_routers_within_three_seconds(
    lab: NatLab, record_property: Callable[..., None]
) -> None:
    one = lab.plan.host("e1")
    here = udp_in(one.namespace, lab.tunnel_address("e1"), PORT)
    target = lab.tunnel_address("e2")
    router = lab.sites["e2"].wan
    with Sniffer(one.namespace) as seen:
        begun_s = time.monotonic()

        def is_direct() -> bool:
            here.sendto(b"to you", (target, PORT))
            return any(
                sent.host == router and sent.payload[:4] == TRANSPORT for sent in list(seen.sent)
            )

        until(is_direct, 15)
    first = next(s for s in seen.sent if s.host == router and s.payload[:4] == TRANSPORT)
    record_property("seconds_to_direct", round(first.at_s - begun_s, 2))
    assert first.at_s - begun_s < 3.0


def test_stn_11_a_hostile_endpoint_makes_others_send_next_to_nothing(lab: NatLab) -> None:
    hostile = Client(lab, "e3")
    hostile.wait("known", lambda told: told["observed"] is not None)
    addresses = [lab.tunnel_address(name) for name in BOTH]
    hostile.say("candidates", *HOSTILE, *(f"{VICTIM}|{5000 + number}" for number in range(9)))
    with ExitStack() as stack:
        seen = {name: stack.enter_context(Sniffer(lab.plan.host(name).namespace)) for name in BOTH}
        for address in addresses:
            for attempt in range(8):
                hostile.say("call", address, f"{attempt:032x}")
                hostile.wait("meet")
        time.sleep(WATCHED_S)
    hostile.end()
    refused = {tuple(pair.split("|")) for pair in HOSTILE}
    for sniffer in seen.values():
        outside = [sent for sent in sniffer.sent if sent.device in UPLINKS]
        assert not {(sent.host, str(sent.port)) for sent in outside} & refused
        hits = Counter(sent.port for sent in outside if sent.host == VICTIM)
        # It was heard, and asked for more than was sent: few ports, few and small packets to each.
        assert 0 < len(hits) <= MOST_PORTS
        for port in hits:
            times_s = [s.at_s for s in outside if (s.host, s.port) == (VICTIM, port)]
            assert all(
                sum(begun_s <= at_s < begun_s + ROUND_S for at_s in times_s) <= MOST_PER_TARGET
                for begun_s in times_s
            )
        assert all(len(sent.payload) < SMALL_BYTES for sent in outside if sent.host == VICTIM)


def test_who_leaves_the_mesh_has_no_direct_tunnel_soon_after(lab: NatLab) -> None:
    server, gone = lab.plan.host("s1"), lab.plan.host("e2")
    node_id = canonical.decode_object(lab.seip(gone, "status", "--json").encode())["node_id"]
    until(lambda: path_to(lab, "e1", "e2") == "direct", 30)
    lab.seipd(server, "tree", "rm", str(node_id))
    # Without a word of the server the list would be looked at after ten minutes.
    until(lambda: path_to(lab, "e1", "e2") == "server", 20)
    assert paths_of(lab, "e1")["peers"]["proved"] == 1
