"""Routes beside the main table: what the host reaches by itself goes on, and nothing is left."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from seipd.agent.routes.closing import close_early, closed_table
from seipd.agent.routes.wishes import Said, remember
from seipd.agent.state import AgentState
from services.base.crypto.agreement import generate_x25519
from services.base.storage.files import write_atomic
from services.edge.wireguard import sidetable
from services.edge.wireguard.choose import remove_leftover
from services.edge.wireguard.model import InterfacePlan, Route, SideTable
from services.edge.wireguard.service import WireGuardService
from services.edge.wireguard.sidetable import table_of
from services.kernel import canonical
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


async def test_a_default_route_in_pieces_leads_no_more_past_the_tunnel_than_one_piece(
    host, service
):
    """As other VPNs, and whoever answers for addresses in the local network, set them."""
    host.run("ip", "addr", "add", "192.0.2.10/24", "dev", "eth0")
    for piece in ("0.0.0.0/1", "128.0.0.0/1", "192.0.0.0/7"):
        host.run("ip", "route", "add", piece, "via", "192.0.2.1")
    host.run("ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.2")
    host.run("ip", "route", "add", "2000::/3", "dev", "eth0")
    side = SideTable(routes=EVERYTHING, past_mark=MARK, closed=("0.0.0.0/0", "::/0"))
    await service.set_plan(replace(PLAN, side=side))
    for address in ("203.0.113.9", "9.9.9.9", "192.0.1.9", "2001:db8::9"):
        assert f"dev {host.wireguard}" in way_to(host, address)
        assert "dev eth0" in way_to(host, address, "mark", str(MARK))
    assert "via 192.0.2.2" in way_to(host, "10.9.0.9")  # a network of one's own, by its router
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


async def test_at_boot_nothing_goes_out_before_the_agent_is_up(host, tmp_path):
    state = AgentState(tmp_path / "state")
    state.folder.mkdir(mode=0o700)
    server = {"endpoint": "198.51.100.7:51940", "addresses": ["198.51.100.8:9100"]}
    mesh = {"tunnel_address": OURS, "tunnel_address6": "fd00::a", "server": server}
    write_atomic(state.folder / "mesh.json", canonical.encode(mesh))
    assert not await close_early(state, host.wireguard)  # no exit is wished
    assert left_of(host) == ""
    remember(state, Said(exit_node="gate"))
    assert await close_early(state, host.wireguard)
    assert await sidetable.ensure(host.wireguard, None, closed_table(state, mesh)) == 0
    # The network comes later than this.
    host.run("ip", "addr", "add", "192.0.2.10/24", "dev", "eth0")
    host.run("ip", "route", "add", "default", "via", "192.0.2.1")
    assert way_to(host, "203.0.113.9") == ""
    assert "dev eth0" in way_to(host, "192.0.2.77")
    assert "dev eth0" in way_to(host, "198.51.100.8")
    assert "dev eth0" in way_to(host, "203.0.113.9", "mark", str(MARK))
    # The agent takes it from there, and opens what is wished no more.
    service = WireGuardService(
        interface=host.wireguard,
        listen_port=0,
        private_key=KEYS[0],
        run_dir=tmp_path / "run",
        clock=SystemClock(),
        tasks=TaskOwner("test"),
        plan=replace(PLAN, side=SideTable(past_mark=MARK)),
        fwmark=MARK,
    )
    await service.start()
    assert "dev eth0" in way_to(host, "203.0.113.9")
    await service.stop(down=True)
    assert left_of(host) == ""


async def test_cli_02_rules_that_a_killed_run_left_are_removed_later(host, service, tmp_path):
    host.run("ip", "link", "del", host.wireguard)
    host.run("ip", "rule", "add", "priority", "11999", "table", "77")
    await service.stop()
    assert left_of(host)
    await remove_leftover(interface=host.wireguard, run_dir=tmp_path, public_key=KEYS[1])
    assert left_of(host) == ""
    assert "lookup 77" in host.run("ip", "rule")


async def test_a_machine_that_has_ipv6_turned_off_has_the_rest(host, tmp_path):
    """The kernel refuses its addresses and routes then as if nobody were root."""
    for name in ("all", "default"):
        host.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
    side = SideTable(routes=EVERYTHING, past_mark=MARK, closed=("0.0.0.0/0", "::/0"))
    service = WireGuardService(
        interface=host.wireguard,
        listen_port=0,
        private_key=KEYS[0],
        run_dir=tmp_path,
        clock=SystemClock(),
        tasks=TaskOwner("test"),
        plan=replace(PLAN, side=side),
        fwmark=MARK,
    )
    await service.start()
    assert f"dev {host.wireguard}" in way_to(host, "203.0.113.9")
    table = ("route", "show", "table", str(table_of(host.wireguard)))
    assert "unreachable default" in host.run("ip", "-6", *table)
    host.run("sysctl", "-qw", f"net.ipv6.conf.{host.wireguard}.disable_ipv6=0")
    await service.check()
    assert "fd00::a" in host.run("ip", "addr", "show", host.wireguard)
    assert f"dev {host.wireguard}" in host.run("ip", "-6", *table)
    await service.stop(down=True)
    assert left_of(host) == ""
