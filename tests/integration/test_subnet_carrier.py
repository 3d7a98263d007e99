"""A machine that carries a subnet: who comes through, as whom, and that nothing is left of it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from seipd.agent.marks import FWMARK
from seipd.agent.routes.carrying import SubnetCarrier, clear_leftovers
from seipd.agent.routes.firewall import Carried
from services.kernel.ids import MeshId
from tests.fakes.hosts import Host

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

MEMBER, STRANGER = "10.64.0.11", "10.64.0.12"
LAN, LAN_HOST, OTHER_HOST, PUBLIC = "192.168.77.0/24", "192.168.77.9", "10.9.0.9", "198.51.100.9"
NEIGHBOUR = "203.0.113.9"
TUNNEL = "seip1"
INNER = ("10.64.0.0/10", "fd00::/64")


HEARS = """
import socket, sys
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind((sys.argv[1], 9000))
print("ready", flush=True)
while True:
    data, place = heard.recvfrom(100)
    heard.sendto(data, place)
    print(data.decode(), flush=True)
"""
SENDS = """
import contextlib, socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(0.5)
one.bind((sys.argv[1], 9001))
one.sendto(sys.argv[3].encode(), (sys.argv[2], 9000))
with contextlib.suppress(OSError):
    one.recv(100)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def net():
    """A router between a tunnel, played by a cable, and a network of three hosts."""
    tag = secrets.token_hex(3)
    router, lan, far = (f"sc{tag}{name}" for name in ("r", "l", "e"))
    for name in (router, lan, far):
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    try:
        for link, other in ((TUNNEL, far), ("lan", lan)):
            cable = ("type", "veth", "peer", "name", "eth0", "netns", other)
            ip("-n", router, "link", "add", link, *cable)
            ip("-n", router, "link", "set", link, "up")
            ip("-n", other, "link", "set", "eth0", "up")
        for name, link, *addresses in (
            (router, TUNNEL, "10.64.0.10/10"),
            (router, "lan", "192.168.77.1/24", "10.9.0.1/24", "203.0.113.1/24"),
            (lan, "eth0", f"{LAN_HOST}/24", f"{OTHER_HOST}/24", f"{PUBLIC}/32", f"{NEIGHBOUR}/24"),
            (far, "eth0", f"{MEMBER}/10", f"{STRANGER}/10"),
        ):
            for address in addresses:
                ip("-n", name, "addr", "add", address, "dev", link)
        ip("-n", router, "route", "add", "default", "dev", "lan")
        ip("-n", far, "route", "add", "default", "via", "10.64.0.10")
        ip("-n", lan, "route", "add", "10.64.0.0/10", "via", "192.168.77.1")
        hosts = [Host(name=name, address="", wireguard=TUNNEL) for name in (router, lan, far)]
        with hosts[0].entered():
            yield hosts
    finally:
        for name in (router, lan, far):
            ip("netns", "del", name)


@pytest.fixture
def carrier(net, tmp_path):
    return SubnetCarrier(interface=TUNNEL, mesh_id=MeshId("ab" * 32), inner=INNER, run_dir=tmp_path)


def reaches(host: Host, address: str, source: str) -> bool:
    return " 0% packet loss" in host.run(
        "ping", "-c", "1", "-W", "1", "-I", source, address, check=False
    )


def settings() -> dict[str, str]:
    folder = Path("/proc/sys/net")
    return {
        str(path.relative_to(folder)): path.read_text()
        for family in ("ipv4", "ipv6")
        for path in (folder / family / "conf").glob("*/*forwarding")
    }


async def test_members_come_through_under_the_routers_address(net, carrier) -> None:
    _, lan, far = net
    assert await carrier.carry(Carried(subnets=(LAN,), members=(MEMBER,))) == ""
    assert reaches(far, LAN_HOST, MEMBER)
    assert not reaches(far, LAN_HOST, STRANGER)
    assert not reaches(far, OTHER_HOST, MEMBER)
    assert not reaches(far, PUBLIC, MEMBER)
    ip("-n", lan.name, "route", "del", "10.64.0.0/10")
    assert reaches(far, LAN_HOST, MEMBER)  # the host knows no way to the mesh, nor needs one
    assert await carrier.carry(Carried(subnets=(LAN,), members=(STRANGER,))) == ""
    assert not reaches(far, LAN_HOST, MEMBER)
    assert reaches(far, LAN_HOST, STRANGER)


async def test_nothing_begins_in_a_subnet(net, carrier) -> None:
    _, lan, far = net
    await carrier.carry(Carried(subnets=(LAN,), members=(MEMBER,)))
    assert not reaches(lan, MEMBER, LAN_HOST)
    assert reaches(far, LAN_HOST, MEMBER)


async def test_an_exit_leads_out_and_not_into_private_networks(net, carrier) -> None:
    _, _, far = net
    await carrier.carry(Carried(is_exit=True, members=(MEMBER,)))
    assert reaches(far, PUBLIC, MEMBER)
    assert not reaches(far, LAN_HOST, MEMBER)
    assert not reaches(far, OTHER_HOST, MEMBER)
    assert not reaches(far, NEIGHBOUR, MEMBER)  # whatever its address: it is in our network
    assert not reaches(far, PUBLIC, STRANGER)


async def test_nothing_goes_on_where_nothing_is_carried_though_the_machine_hands_on(
    net, carrier
) -> None:
    router, _, far = net
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    assert reaches(far, LAN_HOST, MEMBER)
    assert await carrier.carry(Carried()) == ""
    assert not reaches(far, LAN_HOST, MEMBER)
    assert reaches(router, MEMBER, "10.64.0.10")


async def test_the_machine_itself_is_reached_in_the_mesh_and_in_what_it_carries_alone(
    net, carrier
) -> None:
    _, _, far = net
    other = "10.9.0.1"
    assert reaches(far, other, MEMBER)
    await carrier.carry(Carried())
    assert [reaches(far, to, MEMBER) for to in ("10.64.0.10", "192.168.77.1", other)] == [
        True,
        False,
        False,
    ]
    await carrier.carry(Carried(subnets=(LAN,), members=(MEMBER,)))
    assert [reaches(far, to, MEMBER) for to in ("192.168.77.1", other)] == [True, False]


async def test_what_is_withdrawn_ends_what_was_begun(net, carrier) -> None:
    router, lan, far = net
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    await carrier.carry(Carried(subnets=(LAN,), members=(MEMBER,)))
    command = ["ip", "netns", "exec", lan.name, sys.executable, "-c", HEARS, LAN_HOST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hearer:
        try:
            assert hearer.stdout.readline() == "ready\n"
            # One port all the time: to the kernel it is one connection.
            sends = (sys.executable, "-c", SENDS, MEMBER, LAN_HOST)
            far.run(*sends, "allowed")
            assert hearer.stdout.readline() == "allowed\n"
            await carrier.carry(Carried())
            far.run(*sends, "withdrawn")
            await carrier.carry(Carried(subnets=(LAN,), members=(STRANGER,)))
            far.run(*sends, "another's")
            await carrier.carry(Carried(subnets=(LAN,), members=(MEMBER,)))
            far.run(*sends, "allowed again")
            assert hearer.stdout.readline() == "allowed again\n"
        finally:
            hearer.kill()


async def test_what_this_machine_hands_on_by_itself_goes_on(net, carrier) -> None:
    """A container behind a port of the tunnel's address, as Docker has it."""
    router, _, far = net
    await carrier.carry(Carried(subnets=(LAN,), members=(MEMBER,)))
    router.run("nft", "add table ip d")
    router.run("nft", "add chain ip d c { type nat hook prerouting priority dstnat; }")
    assert reaches(far, "10.64.0.10", STRANGER)
    router.run("nft", f"add rule ip d c ip daddr 10.64.0.10 ip protocol icmp dnat to {OTHER_HOST}")
    router.run("nft", "add chain ip d f { type filter hook forward priority -5; }")
    router.run("nft", f"add rule ip d f ip daddr {OTHER_HOST} counter")
    assert reaches(far, "10.64.0.10", STRANGER)
    assert "packets 1 " in router.run("nft", "list", "chain", "ip", "d", "f")


async def test_who_uses_a_subnet_gets_answers_from_there_and_nothing_else(net, carrier) -> None:
    router, _, far = net
    ip("-n", far.name, "addr", "add", "192.168.99.9/32", "dev", "eth0")
    ip("-n", router.name, "route", "add", "192.168.99.0/24", "dev", TUNNEL)
    assert reaches(far, "10.64.0.10", "192.168.99.9")
    await carrier.carry(Carried(uses=True))
    assert not reaches(far, "10.64.0.10", "192.168.99.9")
    assert reaches(router, "192.168.99.9", "10.64.0.10")
    assert reaches(far, "10.64.0.10", MEMBER)


async def test_another_firewall_in_the_way_is_told(net, carrier) -> None:
    router, _, far = net
    carried = Carried(subnets=(LAN,), members=(MEMBER,))
    router.run("nft", "add table ip filter")
    chain = "{ type filter hook forward priority filter; policy drop; }"
    router.run("nft", f"add chain ip filter FORWARD {chain}")
    assert "ip filter FORWARD" in await carrier.carry(carried)
    assert not reaches(far, LAN_HOST, MEMBER)
    for end in ("iifname", "oifname"):
        router.run("nft", f'add rule ip filter FORWARD {end} "{TUNNEL}" accept')
    assert await carrier.carry(carried) == ""
    assert reaches(far, LAN_HOST, MEMBER)


async def test_it_becomes_no_router_between_the_networks_that_it_is_in(net, carrier) -> None:
    router, lan, far = net
    ip("-n", router.name, "link", "add", "wan", "type", "veth", "peer", "name", "far-wan")
    ip("-n", router.name, "link", "set", "far-wan", "up")
    ip("-n", router.name, "addr", "add", "10.77.0.1/24", "dev", "wan")
    ip("-n", router.name, "link", "set", "wan", "up")
    ip("-n", lan.name, "route", "add", "10.77.0.0/24", "via", "192.168.77.1")
    router.run("nft", "add table ip t")
    router.run("nft", "add chain ip t f { type filter hook forward priority 10; }")
    router.run("nft", "add rule ip t f ip daddr 10.77.0.9 counter")
    carried = Carried(subnets=(LAN,), members=(MEMBER,))

    async def goes_on() -> bool:
        before = router.run("nft", "list", "chain", "ip", "t", "f")
        reaches(lan, "10.77.0.9", LAN_HOST)
        return router.run("nft", "list", "chain", "ip", "t", "f") != before

    for _ in range(2):  # as it begins, and when it is looked at again
        assert await carrier.carry(carried) == ""
        assert not await goes_on()
    assert reaches(far, LAN_HOST, MEMBER)
    # Somebody else turned it on for all: that is not ours to forbid.
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    assert await carrier.carry(carried) == ""
    assert await goes_on()


async def test_nothing_is_left_when_it_ends_or_was_killed(net, carrier, tmp_path) -> None:
    router = net[0]
    before = settings()

    def assert_nothing_is_left() -> None:
        assert settings() == before
        assert "seip_routes" not in router.run("nft", "list", "tables")

    carried = Carried(subnets=(LAN,), is_exit=True, members=(MEMBER,))
    await carrier.carry(carried)
    assert settings() != before
    clear_leftovers(TUNNEL, tmp_path)  # as the next run does
    assert_nothing_is_left()
    await carrier.carry(carried)
    assert settings() != before
    await carrier.end()
    assert_nothing_is_left()
    await carrier.carry(carried)  # a look that was under way comes too late
    assert_nothing_is_left()


async def test_a_table_that_somebody_flushed_comes_back(net, carrier) -> None:
    router, _, far = net
    carried = Carried(subnets=(LAN,), members=(MEMBER,))
    await carrier.carry(carried)
    table = (
        "seip_routes_" + router.run("nft", "list", "tables").partition("seip_routes_")[2].strip()
    )
    for edit in ("flush ruleset", f"flush table inet {table}", f"flush chain inet {table} inwards"):
        router.run("nft", edit)
        assert await carrier.carry(carried) == ""
        assert not reaches(far, LAN_HOST, STRANGER)
        assert reaches(far, LAN_HOST, MEMBER)


async def test_what_comes_to_wireguards_port_passes_a_strict_filter(net, carrier) -> None:
    """With an exit everything has another way back than it came by; WireGuard's own does not."""
    router, lan, _ = net
    for name in ("all", "lan"):
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("1")
    ip("-n", router.name, "route", "add", "default", "dev", TUNNEL, "table", "77")
    rule = ("-n", router.name, "rule", "add", "priority")
    ip(*rule, "90", "to", "192.168.77.0/24", "table", "main")
    ip(*rule, "91", "not", "fwmark", str(FWMARK), "table", "77")
    ip("-n", lan.name, "route", "add", "198.51.100.0/24", "dev", "eth0")
    # Nobody answers an ARP request from there: the filter is for those, too.
    assert reaches(lan, "192.168.77.1", LAN_HOST)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("192.168.77.1", 0))
        heard.settimeout(1)
        port = heard.getsockname()[1]
        send = (
            "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
            f"s.bind(('198.51.100.9',0));s.sendto(b'x',('192.168.77.1',{port}))"
        )
        lan.run(sys.executable, "-c", send)
        with pytest.raises(TimeoutError):
            heard.recv(9)
        assert await carrier.carry(Carried(uses=True, port=port)) == ""
        lan.run(sys.executable, "-c", send)
        assert heard.recv(9) == b"x"
    await carrier.end()
    assert Path("/proc/sys/net/ipv4/conf/all/src_valid_mark").read_text() == "0\n"
