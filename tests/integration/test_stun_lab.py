"""Our STUN server before other people's clients, and the kinds of NAT that it lets them name."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from services.edge.stun.natkind import NatKind
from services.kernel.errors import UnavailableError
from tests.fakes.natlab import Kind, nat_lab_of, server_address6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.plan import Host
    from tests.fakes.natlab import NatLab

pytestmark = pytest.mark.integration

NAMED = {
    Kind.OPEN: NatKind.OPEN,
    Kind.FULL_CONE: NatKind.FULL_CONE,
    Kind.PORT_RESTRICTED: NatKind.PORT_RESTRICTED,
    Kind.SYMMETRIC: NatKind.SYMMETRIC,
    Kind.DOUBLE_NAT: NatKind.PORT_RESTRICTED,
}
KINDS = (*NAMED, Kind.IPV6_ONLY)
LOOK = """
import asyncio, sys
from services.edge.stun.natkind import look_at_nat
report = asyncio.run(look_at_nat([(sys.argv[1], 3478)], deadline_s=30))
print(report.kind.value, report.seen_as, report.asked, sep="|")
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with nat_lab_of(KINDS) as built, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEIPD_STUN_ALTERNATE_ADDRESS", built.second_address())
        built.prepare()
        built.start_servers(lambda _: None)
        yield built


def on(lab: NatLab, kind: Kind, *words: str) -> str:
    """Run a program where the endpoint of this kind sits; return all that it said."""
    host = lab.plan.endpoints[KINDS.index(kind)]
    done = subprocess.run(
        [*host.enter(), *words], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_the_daemon_answers_with_two_addresses(lab: NatLab) -> None:
    (service,) = (
        one for one in lab.status(lab.plan.servers[0])["services"] if one["name"] == "stun"
    )
    assert service["state"] == "ok"
    assert lab.second_address() in service["detail"]


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.FULL_CONE])
def test_coturns_client_learns_its_address_and_gets_answers_from_all_places(
    lab: NatLab, kind: Kind
) -> None:
    server = lab.plan.servers[0].address
    said = on(lab, kind, "turnutils_stunclient", server)
    site = lab.sites[lab.plan.endpoints[KINDS.index(kind)].name]
    assert re.search(rf"reflexive addr: {re.escape(site.wan)}:\d+", said), said
    # Behind other routers this program waits for ever for the answers from elsewhere.
    assert len(re.findall("RFC 5780 response", said)) == 3, said


def test_coturns_client_learns_its_address_over_ipv6(lab: NatLab) -> None:
    said = on(lab, Kind.IPV6_ONLY, "turnutils_stunclient", server_address6(lab.plan.servers[0]))
    site = lab.sites[lab.plan.endpoints[KINDS.index(Kind.IPV6_ONLY)].name]
    assert site.address6 in said, said


def test_coturns_discovery_tells_how_a_router_maps_and_filters(lab: NatLab) -> None:
    server = lab.plan.servers[0].address
    cone = on(lab, Kind.FULL_CONE, "turnutils_natdiscovery", "-m", "-f", server)
    symmetric = on(lab, Kind.SYMMETRIC, "turnutils_natdiscovery", "-m", server)
    assert "Endpoint Independent Mapping" in cone, cone
    assert "Endpoint Independent Filtering" in cone, cone
    assert "Address and Port Dependent Mapping" in symmetric, symmetric


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (Kind.OPEN, "Open"),
        (Kind.FULL_CONE, "Independent Mapping, Independent Filter"),
        (Kind.PORT_RESTRICTED, "Independent Mapping, Port Dependent Filter"),
        (Kind.SYMMETRIC, "Dependent Mapping"),
    ],
)
def test_debians_client_names_the_nat(lab: NatLab, kind: Kind, named: str) -> None:
    said = on(lab, kind, "stun", lab.plan.servers[0].address)
    assert f"Primary: {named}" in said, said


def test_pystun3_names_the_nat_right_behind_each_kind_of_router(lab: NatLab) -> None:
    server = lab.plan.servers[0].address
    children = {
        kind: subprocess.Popen(
            [
                *lab.plan.endpoints[KINDS.index(kind)].enter(),
                *(sys.executable, "-c", LOOK, server),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in NAMED
    }
    said = {kind: child.communicate(timeout=60)[0].strip() for kind, child in children.items()}
    for kind, line in said.items():
        name, seen_as, asked = line.split("|")
        site = lab.sites[lab.plan.endpoints[KINDS.index(kind)].name]
        assert (kind, name) == (kind, NAMED[kind].value)
        assert (seen_as, asked) == (site.wan, server)


def test_a_server_that_joins_finds_its_public_address_by_those_that_it_joins(lab: NatLab) -> None:
    first, behind = lab.plan.servers[0], lab.plan.endpoints[KINDS.index(Kind.FULL_CONE)]
    joined = lab.seipd_json(behind, "join", lab.invite(first, "server"))
    known = {one["server_id"]: one for one in lab.seipd_json(first, "servers")}
    wan = lab.sites[behind.name].wan
    assert known[joined["server_id"]]["address"] == f"{wan}:9100"
    with running(lab, behind):
        nat = soon(lambda: doctor(lab, behind)["nat"])
        assert (nat["kind"], nat["seen_as"]) == (NatKind.FULL_CONE.value, wan)
        assert f"{wan}:9100" in {one["address"] for one in lab.seipd_json(behind, "servers")}


def test_the_first_server_finds_its_public_address_by_the_servers_of_the_settings(
    lab: NatLab,
) -> None:
    host = lab.plan.endpoints[KINDS.index(Kind.SYMMETRIC)]
    asked = f"{lab.plan.servers[0].address},{lab.second_address()}"
    said = lab.seipd(host, "init", "--stun-servers", asked)
    assert f"https://{lab.sites[host.name].wan}:9100/api/health" in said


@contextmanager
def running(lab: NatLab, host: Host) -> Iterator[None]:
    """Run a server that nobody told its public address."""
    words = [*host.enter(), sys.executable, "-m", "seipd", "run"]
    with host.log.open("ab") as log:
        child = subprocess.Popen(
            [*words, "--allow-insecure-same-user"],
            stdout=log,
            stderr=log,
            env=lab.environment(host),
        )
    try:
        soon(lambda: is_healthy(lab, host))
        yield
    finally:
        child.terminate()
        child.wait(timeout=30)


def is_healthy(lab: NatLab, host: Host) -> bool:
    try:
        return bool(lab.status(host)["healthy"])
    except UnavailableError:
        return False


def doctor(lab: NatLab, host: Host) -> Any:
    """Return what ``seipd doctor`` says, whatever it finds."""
    words = [*host.enter(), sys.executable, "-m", "seipd", "doctor", "--json"]
    done = subprocess.run(words, capture_output=True, env=lab.environment(host), check=False)
    return orjson.loads(done.stdout)


def soon(found: Callable[[], Any]) -> Any:
    """Return what is found once it is there."""
    deadline = time.monotonic() + 60
    while not (value := found()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert value
    return value
