"""Through every NAT: by which path each pair of endpoints talks, and what happens when it breaks.

All places of the laboratory at once, with real agents at two servers. The table is printed.
``test_nat_lab_whole.py`` has two endpoints in every place.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.natlab import Kind, nat_lab_of, nftables
from tests.fakes.nattalk import SETTLED_S, Talk, say, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seipd.lab.plan import Host
    from tests.fakes.natlab import NatLab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

KINDS = (
    Kind.OPEN,
    Kind.FULL_CONE,
    Kind.PORT_RESTRICTED,
    Kind.SYMMETRIC,
    Kind.DOUBLE_NAT,
    Kind.IPV6_ONLY,
    Kind.SYMMETRIC,
    Kind.PORT_RESTRICTED,
)
RESTRICTED, SYMMETRIC = ("e3", "e8"), ("e4", "e7")
MOVED_S = 15.0
PINGS = 12
DEAD_RELAY = """
    table inet dead {
      chain in {
        type filter hook prerouting priority -500;
        udp dport 9103-9359 drop
      }
    }
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with nat_lab_of(KINDS, servers=2) as built:
        built.bring_up()
        yield built


@pytest.fixture(scope="module")
def talk(lab: NatLab) -> Iterator[Talk]:
    with Talk(lab) as opened:
        yield opened


def test_every_pair_talks_by_the_path_that_the_books_say(lab: NatLab, talk: Talk) -> None:
    numbers = range(1, len(KINDS) + 1)
    pairs = {
        (f"e{one}", f"e{other}"): (KINDS[one - 1], KINDS[other - 1])
        for one, other in itertools.combinations(numbers, 2)
    }
    talk.require_table(pairs)


def test_iperf3_over_a_relayed_tunnel(lab: NatLab, talk: Talk) -> None:
    one, other = SYMMETRIC
    assert talk.settle({(one, other): "relay"})
    server = [*lab.plan.host(other).enter(), "iperf3", "-s", "-1", "--forceflush"]
    client = [*lab.plan.host(one).enter(), "iperf3", "-J", "-t", "2", "-c", talk.addresses[other]]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert any("listening" in line for line in listening.stdout)
        done = subprocess.run(client, capture_output=True, text=True, check=False)
        listening.kill()
    received = re.search(r'"sum_received":\s*\{[^}]*"bits_per_second":\s*([0-9.]+)', done.stdout)
    assert received is not None, done.stdout[-300:]
    say(f"\niperf3 over a relay: {float(received[1]) / 1e6:.0f} Mbit/s")
    assert float(received[1]) > 1e6
    assert talk.path(one, other)["path"] == "relay"


def test_rly_09_a_relay_that_dies_is_left_for_the_other_one(lab: NatLab, talk: Talk) -> None:
    one, other = SYMMETRIC
    assert talk.settle({(one, other): "relay"})
    dead = relay_of(talk, one, other)
    server = next(host for host in lab.plan.servers if host.address == dead)
    kill_relay(server)
    began_s = time.monotonic()
    try:
        # The servers may carry in between; a relay that lives does in the end.
        assert until(lambda: talk.reaches(one, other), MOVED_S), "nothing comes through"
        say(f"\nheard again {time.monotonic() - began_s:.1f} s after the relay died")

        def is_moved() -> bool:
            talk.say(one, other)
            ends = ((one, other), (other, one))
            return all(relay_of(talk, *pair) not in (dead, "") for pair in ends)

        assert until(is_moved, SETTLED_S)
        say(f"over another relay after {time.monotonic() - began_s:.1f} s")
        assert talk.reaches(one, other)
    finally:
        nftables(server.namespace, "delete table inet dead")


def test_a_ping_goes_on_over_another_uplink(lab: NatLab, talk: Talk) -> None:
    """As from Wi-Fi to mobile: another router, another address, and at most three lost."""
    one, other = RESTRICTED
    assert talk.settle({(one, other): "direct"})
    uplink = lab.add_uplink(one, Kind.PORT_RESTRICTED)
    host = lab.plan.host(one)
    ping = ["ping", "-c", str(PINGS), "-i", "1", "-W", "2", talk.addresses[other]]
    with subprocess.Popen([*host.enter(), *ping], stdout=subprocess.PIPE, text=True) as running:
        time.sleep(2)
        subprocess.run(["ip", "-n", host.namespace, "link", "set", "eth0", "down"], check=True)
        said, _ = running.communicate()
    received = re.search(r"(\d+) received", said)
    assert received is not None
    say(f"\n{PINGS - int(received[1])} of {PINGS} pings lost on the way to the other uplink")
    assert int(received[1]) >= PINGS - 3, said
    assert talk.settle({(one, other): "direct"})
    assert uplink.wan in talk.path(other, one)["endpoint"]


def relay_of(talk: Talk, one: str, other: str) -> str:
    """Return the address of the relay that an endpoint's packets to another go to."""
    path = talk.path(one, other)
    return str(path["endpoint"].rpartition(":")[0]) if path["path"] == "relay" else ""


def kill_relay(server: Host) -> None:
    """Let a relay be dead to all, as if its process were killed; the server lives."""
    nftables(server.namespace, DEAD_RELAY)
