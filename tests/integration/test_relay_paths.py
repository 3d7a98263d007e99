"""Real WireGuard tunnels over a relay, by the kernel and by the program."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from contextlib import asynccontextmanager, closing

import msgspec
import pytest

from services.edge.relay.kernelpath import KernelPath, remove_leftover
from services.runtime.tasks import TaskOwner
from tests.fakes.relay_lab import Endpoint, RelayProcess, three_hosts, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

MARK = b"not for the relay's eyes " * 8


@asynccontextmanager
async def relayed(*, kernel: bool, host6: str = "", both6: bool = False):
    """Give the relay's host, the relay and both endpoints, their tunnel over it being up."""
    tasks = TaskOwner("test")
    with three_hosts() as (host_a, host_r, host_b):
        relay = RelayProcess(host_r, kernel=kernel)
        a, b = Endpoint(host_a, "10.99.0.1"), Endpoint(host_b, "10.99.0.2")
        try:
            for one, other in ((a, b), (b, a)):
                one.up(other)
                tasks.spawn(one.relaying.run(), name="relaying")
            meet(relay, a, b, host6=host6, both6=both6)
            await until(lambda: a.told and b.told)
            yield host_r, relay, a, b
        finally:
            await tasks.close()
            a.raw.close()
            b.raw.close()
            relay.kill()


def meet(
    relay: RelayProcess, a: Endpoint, b: Endpoint, *, host6: str = "", both6: bool = False
) -> None:
    if both6:
        a.relaying.begin(b.public, [relay.offer(a, b, host4="", host6="2001:db8:1::1")])
    else:
        a.relaying.begin(b.public, [relay.offer(a, b)])
    if host6:
        b.relaying.begin(a.public, [relay.offer(a, b, host4="", host6=host6)])
    else:
        b.relaying.begin(a.public, [relay.offer(a, b, host4="198.18.2.1")])


async def tunnel_is_up(one: Endpoint) -> None:
    await until(lambda: one.pings() == 1)


def captured(host, interface: str, while_doing) -> list[bytes]:
    """Return the frames that pass an interface meanwhile."""
    with host.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with closing(tap):
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        tap.settimeout(0.3)
        while_doing()
        frames = []
        while True:
            try:
                data, (name, *_) = tap.recvfrom(4096)
            except TimeoutError:
                return frames
            if name == interface:
                frames.append(data)


def say_through_the_tunnel(a: Endpoint, b: Endpoint) -> None:
    """Send a known text, and see it arrive."""
    with b.host.entered():
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind((b.tunnel, 7777))
    with a.host.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with closing(listener), closing(sender):
        listener.settimeout(5)
        sender.sendto(MARK, (b.tunnel, 7777))
        assert listener.recv(2048) == MARK


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "program"])
async def test_a_relayed_tunnel_carries_and_the_relay_reads_nothing(kernel):
    async with relayed(kernel=kernel) as (host_r, relay, a, b):
        await tunnel_is_up(a)
        frames = captured(host_r, "eth1", lambda: say_through_the_tunnel(a, b))
        assert any(b"\x04\0\0\0" in frame for frame in frames)
        assert all(MARK[:16] not in frame for frame in frames)
        status = relay.ask("look")
        assert status["carried_bytes"] > 2 * len(MARK)
        assert status["path"] == ("kernel" if kernel else "userspace")
        assert (status["passed_packets"] == 0) is kernel


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "program"])
async def test_iperf3_runs_over_a_relayed_tunnel(kernel):
    async with relayed(kernel=kernel) as (_, relay, a, b):
        await tunnel_is_up(a)
        server = subprocess.Popen(
            ["ip", "netns", "exec", b.host.name, "iperf3", "-s", "-1", "-B", b.tunnel],
            stdout=subprocess.DEVNULL,
        )
        try:
            await until(lambda: b.tunnel in b.host.run("ss", "-Hltn", "sport = :5201"))
            told = a.host.run("iperf3", "-J", "-t", "2", "-c", b.tunnel, "-B", a.tunnel)
            received = msgspec.json.decode(told)["end"]["sum_received"]
            assert received["bytes"] > 1_000_000
            assert relay.ask("look")["carried_bytes"] > received["bytes"]
        finally:
            server.kill()
            server.wait()


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "program"])
async def test_a_new_port_in_mid_session_is_followed(kernel):
    async with relayed(kernel=kernel) as (_, relay, a, b):
        await tunnel_is_up(a)
        a.move(51999)
        await until(lambda: a.pings() == 1 and b.pings() == 1)
        assert a.told == [("bound", ("198.18.1.1", 9104))]
        assert relay.ask("status")["sessions"] == 1


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "program"])
async def test_rly_04_a_revoked_endpoint_is_cut_off_at_once(kernel):
    async with relayed(kernel=kernel) as (_, relay, a, b):
        await tunnel_is_up(a)
        relay.ask("revoke", key=a.public.hex())
        await until(lambda: ("lost", "revoked") in a.told and ("lost", "revoked") in b.told)
        assert a.pings(3) == 0
        assert relay.ask("status")["sessions"] == 0


async def test_rly_09_cli_02_a_killed_relay_is_noticed_and_the_next_takes_over_its_table():
    async with relayed(kernel=True) as (host_r, relay, a, b):
        await tunnel_is_up(a)
        relay.kill()
        await until(lambda: len(a.told) == 2 and len(b.told) == 2, wait_s=12)
        assert a.told[1] == b.told[1] == ("lost", "silent")
        assert "party" in host_r.run("nft", "list", "table", "ip", "seipd_relay")
        again = RelayProcess(host_r, kernel=True)
        try:
            assert "10.99" not in host_r.run("nft", "list", "table", "ip", "seipd_relay")
            assert "198.18.1.2" not in host_r.run("nft", "list", "table", "ip", "seipd_relay")
            meet(again, a, b)
            await until(lambda: len(a.told) == 3 and len(b.told) == 3)
            await tunnel_is_up(a)
            again.stop()
            assert host_r.run("nft", "list", "tables") == ""
            assert host_r.run("sysctl", "-n", "net.ipv4.conf.eth1.forwarding").strip() == "0"
        finally:
            again.kill()


def test_cli_02_what_a_killed_relay_left_is_taken_down():
    with three_hosts() as (_, host, _), host.entered():
        killed = KernelPath(table="seipd_relay_seip0", first_port=9104)
        killed.open()
        assert killed.arrive("198.18.1.1", "eth1")
        assert host.run("sysctl", "-n", "net.ipv4.conf.eth1.forwarding") == "1\n"
        host.run("nft", "add", "table", "ip", "others")
        assert remove_leftover("seipd_relay_seip0")
        assert host.run("nft", "list", "tables") == "table ip others\n"
        assert host.run("sysctl", "-n", "net.ipv4.conf.eth1.forwarding") == "0\n"
        assert not remove_leftover("seipd_relay_seip0")


async def test_one_side_by_ipv6_goes_through_the_program():
    async with relayed(kernel=True, host6="2001:db8:2::1") as (_, relay, a, b):
        await tunnel_is_up(a)
        assert b.pings(3) == 3
        assert relay.ask("look")["passed_packets"] > 0


async def test_both_by_ipv6_go_through_the_kernel():
    async with relayed(kernel=True, host6="2001:db8:2::1", both6=True) as (_, relay, a, b):
        await tunnel_is_up(a)
        assert b.pings(3) == 3
        status = relay.ask("look")
        assert (status["path"], status["passed_packets"]) == ("kernel", 0)
        assert status["carried_bytes"] > 1000


async def test_the_kernel_forwards_what_is_relayed_and_nothing_else():
    async with relayed(kernel=True) as (host_r, relay, a, b):
        await tunnel_is_up(a)
        assert host_r.run("sysctl", "-n", "net.ipv4.conf.eth1.forwarding").strip() == "1"
        past = a.host.run("ping", "-n", "-q", "-c", "2", "-W", "1", "198.18.2.2", check=False)
        assert " 0 received" in past
        assert b.pings(3) == 3
        assert relay.ask("status")["path"] == "kernel"


async def test_a_table_that_somebody_flushes_comes_back():
    async with relayed(kernel=True) as (host_r, relay, a, _):
        await tunnel_is_up(a)
        host_r.run("nft", "flush", "ruleset")
        relay.ask("look")
        await tunnel_is_up(a)
        assert relay.ask("look")["path"] == "kernel"


async def test_another_firewall_that_drops_what_is_forwarded_is_gone_around():
    async with relayed(kernel=True) as (host_r, relay, a, b):
        await tunnel_is_up(a)
        relay.ask("look")
        host_r.run("nft", "add table ip other")
        host_r.run(
            "nft", "add chain ip other onward { type filter hook forward priority 0; policy drop; }"
        )
        with a.host.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with closing(sender):
            for _ in range(200):
                sender.sendto(bytes(100), (b.tunnel, 9))
        await asyncio.sleep(0.3)
        status = relay.ask("look")
        assert status["path"] == "userspace"
        assert "another firewall" in status["detail"]
        await tunnel_is_up(a)
