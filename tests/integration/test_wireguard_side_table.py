"""Routes beside the main table: what the host reaches by itself goes on, and nothing is left."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from services.base.crypto.agreement import generate_x25519
from services.edge.wireguard.choose import remove_leftover
from services.edge.wireguard.model import InterfacePlan, Route, SideTable
from services.edge.wireguard.service import WireGuardService
from services.edge.wireguard.sidetable import table_of
from services.runtime.clock import SystemClock
from services.runtime.tasks import TaskOwner
from tests.fakes.hosts import two_hosts

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

MARK = 0x5E1B
OURS = "10.64.0.10"
KEYS = generate_x25519()
SUBNETS = (Route(destination="192.168.7.0/24", source=OURS), Route(destination="fd77::/64"))
EVERYTHING = (Route(destination="0.0.0.0/0", source=OURS), Route(destination="::/0"))
PLAN = InterfacePlan(
    addresses=(f"{OURS}/32", "fd00::a/128"),
    routes=(Route(destination="10.64.0.0/10", source=OURS),),
    side=SideTable(routes=SUBNETS, past_mark=MARK),
)


@pytest.fixture
def host():
    with two_hosts("wgs") as (here, _), here.entered():
        yield here


@pytest.fixture
async def service(host, tmp_path):
    service = WireGuardService(
        interface=host.wireguard,
        listen_port=0,
        private_key=KEYS[0],
        run_dir=tmp_path,
        clock=SystemClock(),
        tasks=TaskOwner("test"),
        plan=PLAN,
        fwmark=MARK,
    )
    await service.start()
    yield service
    await service.stop(down=True)
    assert left_of(host) == ""


def left_of(host) -> str:
    table = str(table_of(host.wireguard))
    listed = [host.run("ip", family, "rule") for family in ("-4", "-6")]
    rules = [line for one in listed for line in one.splitlines() if "proto 94" in line]
    # A table that never was has no routes: ip says so and fails.
    ways = [
        host.run("ip", family, "route", "show", "table", table, check=False)
        for family in ("-4", "-6")
    ]
    return "".join(rules + ways)


def way_to(host, address: str, *more: str) -> str:
    return host.run("ip", "route", "get", address, *more, check=False)


async def test_subnets_go_into_the_tunnel_and_the_hosts_own_do_not(host, service):
    into = f"dev {host.wireguard}"
    assert into in way_to(host, "192.168.7.9")
    assert f"src {OURS}" in way_to(host, "192.168.7.9")
    assert into in way_to(host, "fd77::9")
    assert into not in way_to(host, "192.168.8.9")
    host.run("ip", "addr", "add", "192.168.7.1/24", "dev", "eth0")
    assert "dev eth0" in way_to(host, "192.168.7.9")


async def test_everything_goes_into_the_tunnel_save_what_is_marked_excepted_or_near(host, service):
    host.run("ip", "addr", "add", "192.0.2.10/24", "dev", "eth0")
    host.run("ip", "route", "add", "default", "via", "192.0.2.1")
    side = SideTable(
        routes=EVERYTHING,
        past_mark=MARK,
        excepted=("198.51.100.7/32",),
        closed=("0.0.0.0/0", "::/0"),
    )
    await service.set_plan(replace(PLAN, side=side))
    assert f"dev {host.wireguard}" in way_to(host, "203.0.113.9")
    assert f"dev {host.wireguard}" in way_to(host, "2001:db8::9")
    assert "dev eth0" in way_to(host, "203.0.113.9", "mark", str(MARK))
    assert "dev eth0" in way_to(host, "198.51.100.7")
    assert "dev eth0" in way_to(host, "192.0.2.77")
    assert f"fwmark: {MARK:#x}" in host.run("wg", "show", host.wireguard)
    host.run("ip", "link", "set", host.wireguard, "down")
    assert way_to(host, "203.0.113.9") == ""  # closed: it does not go out another way
    host.run("ip", "link", "set", host.wireguard, "up")
    await service.check()
    assert f"dev {host.wireguard}" in way_to(host, "203.0.113.9")
    await service.set_plan(replace(PLAN, side=SideTable(past_mark=MARK)))
    assert left_of(host) == ""
    assert "dev eth0" in way_to(host, "203.0.113.9")


async def test_a_servers_table_is_for_what_comes_in_by_the_tunnel(host, service):
    side = SideTable(routes=(Route(destination="192.168.7.0/24"),))
    await service.set_plan(replace(PLAN, side=side, forwarding=True))
    assert host.wireguard not in way_to(host, "192.168.7.9")
    arrived = ("from", "10.64.0.11", "iif", host.wireguard)
    assert f"dev {host.wireguard}" in way_to(host, "192.168.7.9", *arrived)
    await service.set_plan(replace(PLAN, side=None))
    assert "192.168.7.0" in left_of(host)  # nobody looked after it
    await service.set_plan(PLAN)
    assert "iif" not in left_of(host)


async def test_cli_02_rules_that_a_killed_run_left_are_removed_later(host, service, tmp_path):
    host.run("ip", "link", "del", host.wireguard)
    host.run("ip", "rule", "add", "priority", "11999", "table", "77")
    await service.stop()
    assert left_of(host)
    await remove_leftover(interface=host.wireguard, run_dir=tmp_path, public_key=KEYS[1])
    assert left_of(host) == ""
    assert "lookup 77" in host.run("ip", "rule")
