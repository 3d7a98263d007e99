"""Two servers that nobody reaches from outside meet through those that have an address."""

from __future__ import annotations

import subprocess
import time

import pytest

from seipd.lab import net
from seipd.lab.mesh import Lab
from services.kernel.errors import UnavailableError
from tests.fakes.labs import lab_of

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]

PUBLIC = ("s1", "s2")
HIDDEN = ("s3", "s4")
# What conntrack knows was asked for from inside; what is new comes from its own endpoint alone.
NOBODY_COMES_IN = """table inet nat-like {{
  chain in {{
    type filter hook input priority -200;
    iifname != "eth0" accept
    ct state established,related accept
    ip saddr {endpoint} accept
    ip protocol icmp accept
    drop
  }}
}}
"""


class HiddenLab(Lab):
    """Servers 3 and 4 say that they have no address; endpoints send over servers alone."""

    endpoint_mode = "hub"

    def environment(self, host):
        found = super().environment(host)
        if host.name in HIDDEN:
            found["SEIPD_PUBLIC_ADDRESS"] = "none"
        return found

    def address_flags(self, host):
        return [] if host.name in HIDDEN else super().address_flags(host)


@pytest.fixture(scope="module")
def lab():
    """Two public servers, two hidden ones, an endpoint of each hidden one."""
    with lab_of(4, 2, kind=HiddenLab) as built:
        build(built)
        yield built


def build(lab: Lab) -> None:
    plan = lab.plan
    lab.prepare()
    for host in plan.hosts:
        net.run("ip", "-n", host.namespace, "route", "add", "default", "via", "198.18.0.1")
    for name, endpoint in zip(HIDDEN, plan.endpoints, strict=True):
        rules = NOBODY_COMES_IN.format(endpoint=endpoint.address)
        net.run(*plan.host(name).enter(), "nft", "-f", "-", stdin=rules)
    lab.start_servers(lambda line: None)
    for name, endpoint in zip(HIDDEN, plan.endpoints, strict=True):
        lab.join_endpoint(endpoint, plan.host(name))


def until(probe, seconds: float) -> float:
    """Wait until something holds; return how long it took."""
    begun = time.monotonic()
    while not probe():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.2)
    return time.monotonic() - begun


def reaches(lab: Lab, one: str, address: str) -> bool:
    host = lab.plan.host(one)
    ping = [*host.enter(), "ping", "-c", "1", "-W", "1", address]
    return subprocess.run(ping, capture_output=True, check=False).returncode == 0


def is_well(lab: Lab, name: str) -> bool:
    try:
        return lab.seipd(lab.plan.host(name), "doctor") == "nothing is wrong\n"
    except UnavailableError:
        return False


def row_of(lab: Lab, one: str, other: str) -> dict:
    wanted = lab.status(lab.plan.host(other))["server_id"]
    rows = lab.seipd_json(lab.plan.host(one), "servers")
    return next(row for row in rows if row["server_id"] == wanted)


def middle_of(lab: Lab) -> str:
    """Return the public server by which the hidden ones meet; both must say the same."""
    said = {row_of(lab, *HIDDEN)["through"], row_of(lab, *reversed(HIDDEN))["through"]}
    if len(said) != 1:
        return ""
    names = {lab.status(lab.plan.host(name))["server_id"]: name for name in PUBLIC}
    return names.get(said.pop(), "")


def test_hidden_servers_and_their_endpoints_meet_through_a_public_one(
    lab: Lab, record_property
) -> None:
    took_s = until(lambda: middle_of(lab) != "", 60)
    record_property("seconds_to_a_way", round(took_s, 1))
    far = lab.tunnel_address("e2")
    until(lambda: reaches(lab, "e1", far), 20)
    until(lambda: reaches(lab, "e2", lab.tunnel_address("e1")), 5)
    # Not by any other way: neither hidden server takes what it did not ask for.
    outside = lab.plan.host("s4").address
    knock = ["bash", "-c", f"exec 3<>/dev/tcp/{outside}/9100"]
    tried = subprocess.run([*lab.plan.host("s3").enter(), "timeout", "2", *knock], check=False)
    assert tried.returncode != 0


def test_gossip_between_hidden_servers_goes_over_the_backbone(lab: Lab) -> None:
    def row() -> dict:
        return row_of(lab, *HIDDEN)

    backbone = lab.status(lab.plan.host("s4"))["backbone_address"]
    until(lambda: row()["latency_ms"] is not None and row()["state"] == "alive", 30)
    assert row()["address"] == f"{backbone}:9100"
    hosts = [lab.plan.host(name) for name in (*PUBLIC, *HIDDEN)]
    until(lambda: len({lab.status(host)["state_hash"] for host in hosts}) == 1, 20)


def test_everybody_sees_how_far_the_others_are_from_each_other(lab: Lab) -> None:
    ids = {name: lab.status(lab.plan.host(name))["server_id"] for name in (*PUBLIC, *HIDDEN)}

    def matrix() -> dict[str, set[str]]:
        rows = lab.seipd_json(lab.plan.host("s1"), "servers")
        return {row["server_id"]: set(row["latencies_ms"]) for row in rows}

    everybody = set(ids.values())
    until(lambda: matrix() == {one: everybody - {one} for one in everybody}, 90)
    assert "through" in lab.seipd(lab.plan.host("s3"), "servers")
    until(lambda: is_well(lab, "s3"), 60)


def test_a_restart_of_a_hidden_server_loses_no_packet_that_goes_round(lab: Lab) -> None:
    host, far = lab.plan.host("e1"), lab.tunnel_address("e2")
    ping = subprocess.Popen(
        [*host.enter(), "ping", "-i", "0.2", "-c", "75", far], stdout=subprocess.PIPE, text=True
    )
    hidden = lab.plan.host("s3")
    lab.stop_server(hidden)
    lab.start_server(hidden)
    said, _ = ping.communicate(timeout=60)
    assert "75 packets transmitted, 75 received" in said
    until(lambda: middle_of(lab) != "", 30)


def test_servers_that_are_cut_apart_unawares_meet_through_another(
    lab: Lab, record_property
) -> None:
    one, other = (lab.plan.host(name) for name in PUBLIC)
    net.partition(one, other)
    took_s = until(lambda: row_of(lab, *PUBLIC)["through"] is not None, 120)
    record_property("seconds_to_a_way_around_a_cut", round(took_s, 1))
    until(lambda: reaches(lab, "s1", lab.status(other)["backbone_address"]), 30)
    net.heal([one, other])
    until(lambda: row_of(lab, *PUBLIC)["through"] is None, 60)
    until(lambda: reaches(lab, "s1", lab.status(other)["backbone_address"]), 10)


def test_when_the_server_in_the_middle_dies_the_other_one_takes_its_place(
    lab: Lab, record_property
) -> None:
    dying = middle_of(lab)
    staying = next(name for name in PUBLIC if name != dying)
    gone = lab.plan.host(dying)
    for host in lab.plan.hosts:
        if host != gone:
            net.partition(gone, host)
    begun = time.monotonic()
    until(lambda: middle_of_living(lab, staying), 60)
    far = lab.tunnel_address("e2")
    until(lambda: reaches(lab, "e1", far), 20)
    record_property("seconds_to_another_way", round(time.monotonic() - begun, 1))


def middle_of_living(lab: Lab, staying: str) -> bool:
    staying_id = lab.status(lab.plan.host(staying))["server_id"]
    return {
        row_of(lab, *HIDDEN)["through"],
        row_of(lab, *reversed(HIDDEN))["through"],
    } == {staying_id}
