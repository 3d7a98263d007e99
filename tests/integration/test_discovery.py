"""With a domain and a token alone: to the nearest of three servers, and away when that slows."""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from services.kernel import canonical
from services.kernel.invitations import decode_token, encode_token
from tests.fakes.labs import lab_of
from tests.fakes.slowlink import SlowLink, slow_link

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REGIONS = {"s1": "eu-central", "s2": "us-east", "s3": "ap-east"}
ONE_WAY_MS = {"s1": 150, "s2": 40, "s3": 0}
# A look at every server each 20 seconds, and as much again for a machine that is busy.
MOVE_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class World:
    lab: Lab
    links: dict[str, SlowLink]
    domain: str
    ids: dict[str, str]


def ask_dns(lab: Lab, name: str, rtype: str) -> list[str]:
    words = [*lab.plan.host("e1").enter(), "dig", "+short", name, rtype]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return sorted(done.stdout.split())


@pytest.fixture(scope="module")
def world():
    """Three servers in three regions; what lies between them and e1 differs in length."""
    with lab_of(3, 2) as lab, contextlib.ExitStack() as stack:
        lab.prepare()
        lab.start_servers(lambda line: None, server_count=1)
        first, *others = lab.plan.servers
        for host in others:
            token = lab.invite(first, "server")
            flags = lab.address_flags(host)
            lab.seipd(host, "join", token, "--region", REGIONS[host.name], *flags)
            lab.start_server(host)
        links = {
            name: stack.enter_context(slow_link(lab, "e1", name, one_way_ms))
            for name, one_way_ms in ONE_WAY_MS.items()
        }
        status = lab.status(first)
        ids = {host.name: lab.status(host)["server_id"] for host in lab.plan.servers}
        deadline = time.monotonic() + 30
        listed = sorted(f"_config.{one}.seip.{status['domain']}." for one in REGIONS.values())
        while ask_dns(lab, f"_config.seip.{status['domain']}", "PTR") != listed:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield World(lab, links, status["domain"], ids)


def server_of(lab: Lab, name: str) -> str:
    path = lab.plan.host(name).data_root / "mesh.json"
    return canonical.decode_object(path.read_bytes())["server"]["server_id"]


def test_the_domain_leads_to_each_server_and_its_ports(world: World) -> None:
    for name, region in REGIONS.items():
        listed = f"_config.{region}.seip.{world.domain}"
        config = f"_config.{world.ids[name]}.{region}.seip.{world.domain}"
        assert ask_dns(world.lab, listed, "PTR") == [f"{config}."]
        words = ask_dns(world.lab, config, "TXT")
        assert '"v=sp1' in words
        assert "http=9100" in words


def test_it_joins_goes_to_the_nearest_and_leaves_it_when_it_slows(world: World) -> None:
    lab, host = world.lab, world.lab.plan.host("e1")
    token = lab.invite(lab.plan.servers[0], "endpoint")
    lab.seip(host, "join", token, "--domain", world.domain)
    assert server_of(lab, "e1") == world.ids["s3"]
    lab.seip(host, "up", "--wireguard-interface", host.interface)
    address = lab.tunnel_address("e1")
    world.links["s3"].delay(450)
    began = time.monotonic()
    while server_of(lab, "e1") == world.ids["s3"]:
        assert time.monotonic() - began < MOVE_LIMIT_S
        time.sleep(0.5)
    assert server_of(lab, "e1") == world.ids["s2"]
    assert lab.tunnel_address("e1") == address
    status = canonical.decode(lab.seip(host, "status", "--json").encode())
    assert world.ids["s2"] in status["moved_because"]


def test_a_token_whose_addresses_do_not_answer_is_redeemed_by_the_domain(world: World) -> None:
    lab = world.lab
    token = lab.invite(lab.plan.servers[0], "endpoint")
    # Nothing listens at port 1.
    nowhere = (f"{lab.plan.servers[0].address}:1",)
    moved = encode_token(replace(decode_token(token), addresses=nowhere))
    lab.seip(lab.plan.host("e2"), "join", moved, "--domain", world.domain, "--name", "e2")
    assert server_of(lab, "e2") in world.ids.values()
