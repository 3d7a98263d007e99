"""The kernel itself judges packets by compiled tables, and answers as the ACL does."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from services.edge.policy.compiling import deeper, table_name, whole_table
from services.edge.policy.table import KernelTable
from services.edge.subnets.guarding import SubnetBook
from services.edge.subnets.guarding import whole_table as subnets_table
from services.kernel.addr import default_ranges, tunnel_range6
from tests.fakes.hosts import Host
from tests.fakes.namespaces import inside
from tests.fakes.policies import StillState
from tests.unit.edge_policy.policy_kit import ENDPOINTS, MESH, TREE, address, book_of, expected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

TABLES = 12
# Of protocols without ports, what comes back is an answer to the kernel: they are not asked here.
PROBES = ((6, 22), (6, 443), (17, 53), (1, 0))
TRAFFIC = ("any", "tcp", "udp", "icmp", "tcp/22", "tcp/443", "tcp/1-100", "udp/50-60", "tcp/22-443")
SENDER = r"""
import json, select, socket, struct, sys, time
source_mac, router_mac = (bytes.fromhex(one.replace(":", "")) for one in sys.argv[1:])
line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
line.bind(("c0", 0))
def summed(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
def frame(number, saddr, daddr, protocol, port, six, is_middle, sport=40000):
    family = socket.AF_INET6 if six else socket.AF_INET
    ends = socket.inet_pton(family, saddr) + socket.inet_pton(family, daddr)
    mark = struct.pack("!I", number)
    if protocol == 6:
        flags = 16 if is_middle else 2
        head = struct.pack("!HHIIBBHHH", sport, port, number, 0, 80, flags, 1000, 0, 0)
        at = 16
    elif protocol == 17:
        head, at = struct.pack("!HHHH", sport, port, 12, 0) + mark, 6
    else:
        head, at = struct.pack("!BBHI", 128 if six else 8, 0, 0, number), 2
    pseudo = b"" if protocol == 1 else ends + struct.pack("!IHH", len(head), 0, protocol)
    head = head[:at] + struct.pack("!H", summed(pseudo + head)) + head[at + 2 :]
    if six:
        outer, kind = struct.pack("!IHBB", 6 << 28, len(head), protocol, 64) + ends, 0x86DD
    else:
        outer = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(head), 0, 0, 64, protocol, 0) + ends
        outer = outer[:10] + struct.pack("!H", summed(outer)) + outer[12:]
        kind = 0x0800
    return router_mac + source_mac + struct.pack("!H", kind) + outer + head
def number_in(data):
    six = data[12:14] == b"\x86\xdd"
    protocol, inner = (data[20], data[54:]) if six else (data[23], data[34:])
    at = {6: 4, 17: 8, 1: 4, 58: 4}.get(protocol)
    if at is None or (protocol in (1, 58) and inner[0] not in (8, 128)):
        return None
    return struct.unpack("!I", inner[at : at + 4])[0]
def collect(limit_s):
    while select.select([line], [], [], limit_s)[0]:
        data, where = line.recvfrom(2000)
        if where[2] != socket.PACKET_OUTGOING and (number := number_in(data)) is not None:
            came.add(number)
came = set()
for packets in map(json.loads, sys.stdin):
    came.clear()
    for number, packet in enumerate(packets):
        line.send(frame(number, *packet))
        collect(0)
    collect(0.3)
    print(json.dumps(sorted(came)), flush=True)
"""


def run(*words: str, text: str | None = None) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def mac_of(namespace: str, device: str) -> str:
    (link,) = json.loads(run("ip", "-n", namespace, "-j", "link", "show", device))
    return link["address"]


@pytest.fixture
def router() -> Iterator[tuple[str, str]]:
    """A host that sends back what comes in, by the same interface, and a neighbour of it."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    names = tuple(f"pol{os.getpid() % 100_000}{end}" for end in "rc")
    one, other = names
    try:
        for name in names:
            run("ip", "netns", "add", name)
        link = ("link", "add", "seip0", "type", "veth", "peer", "name", "c0", "netns", other)
        run("ip", "-n", one, *link)
        for name, device, host in ((one, "seip0", 1), (other, "c0", 2)):
            run("ip", "-n", name, "link", "set", device, "up")
            run("ip", "-n", name, "addr", "add", f"192.0.2.{host}/24", "dev", device)
            six = f"2001:db8::{host}/64"
            run("ip", "-n", name, "addr", "add", six, "dev", device, "nodad")
        for route, gateway in (
            (str(default_ranges().tunnel), "192.0.2.2"),
            (str(tunnel_range6(MESH)), "2001:db8::2"),
        ):
            run("ip", "-n", one, "route", "add", route, "via", gateway, "dev", "seip0")
            mac = mac_of(other, "c0")
            run("ip", "-n", one, "neigh", "add", gateway, "lladdr", mac, "dev", "seip0")
        for setting in (
            "ipv4.ip_forward=1",
            "ipv6.conf.all.forwarding=1",
            "ipv4.conf.all.rp_filter=0",
            "ipv4.conf.seip0.rp_filter=0",
            "ipv4.conf.seip0.send_redirects=0",
            "ipv4.icmp_ratelimit=0",
        ):
            run("ip", "netns", "exec", one, "sysctl", "-qw", f"net.{setting}")
        yield one, other
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def passes(state, source, target, probe, six, is_middle) -> bool:
    back = is_middle and expected(state, target, source, (6, 40_000))
    return back or expected(state, source, target, probe)


def put_table(namespace: str, state: StillState) -> None:
    text = whole_table(book_of(state), interface="seip0", ranges=default_ranges(), mesh_id=MESH)
    run("ip", "netns", "exec", namespace, "nft", "-f", "-", text=text)


@contextmanager
def sending(router: tuple[str, str]) -> Iterator[Callable[[list[tuple]], set[int]]]:
    """Yield what sends packets and returns the numbers of those that came through."""
    one, other = router
    macs = (mac_of(other, "c0"), mac_of(one, "seip0"))
    command = ["ip", "netns", "exec", other, sys.executable, "-c", SENDER, *macs]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None

        def send(packets: list[tuple]) -> set[int]:
            sender.stdin.write(json.dumps(packets) + "\n")
            sender.stdin.flush()
            return set(json.loads(sender.stdout.readline()))

        yield send
        sender.stdin.close()


@pytest.mark.parametrize("six", [False, True])
def test_a_rule_that_goes_ends_what_was_begun_by_it_both_ways(
    router: tuple[str, str], six: bool
) -> None:
    """Of UDP, too: who was asked once may not go on sending for ever."""
    namespace = router[0]
    opened, closed = StillState(TREE, [("allow", "acme", "b1", "udp/53")]), StillState(TREE)
    a1, b1 = (address(opened, name, six=six) for name in ("a1", "b1"))
    question, answer = (a1, b1, 17, 53, six, False), (b1, a1, 17, 40_000, six, False, 53)
    with sending(router) as send:
        put_table(namespace, opened)
        assert send([answer]) == set()
        assert send([question]) == {0}
        assert send([answer, answer]) == {0, 1}
        put_table(namespace, closed)
        assert send([question, answer]) == set()
        put_table(namespace, opened)
        assert send([question, answer]) == {0, 1}


@pytest.mark.parametrize(("six", "mss"), [(False, 1260), (True, 1240)])
def test_tcp_is_told_to_use_no_larger_pieces_than_the_tunnel_takes(
    router: tuple[str, str], six: bool, mss: int
) -> None:
    """Its ends may think that more fits, as stock clients do."""
    one, other = router
    state = StillState(TREE)
    here, there = (address(state, name, six=six) for name in ("a1", "a2"))
    put_table(one, state)
    run("ip", "-n", one, "link", "set", "seip0", "mtu", "1300")
    run("ip", "-n", other, "addr", "add", here, "dev", "c0", *(("nodad",) if six else ()))
    gateway = "2001:db8::1" if six else "192.0.2.1"
    # No tunnel asks for its neighbours, so the table drops what does.
    mac = mac_of(one, "seip0")
    run("ip", "-n", other, "neigh", "replace", gateway, "lladdr", mac, "dev", "c0")
    run("ip", "-n", other, "route", "add", there, "via", gateway, "src", here)
    with inside(other):
        line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        asking = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
    with line, asking:
        line.bind(("c0", 0))
        line.settimeout(10)
        asking.setblocking(False)
        assert asking.connect_ex((there, 443)) == errno.EINPROGRESS
        assert mss_of_returned_syn(line, six=six) == mss


def mss_of_returned_syn(line: socket.socket, *, six: bool) -> int:
    """Return the first option of the next SYN that comes in: the MSS, as Linux writes it."""
    while True:
        data, where = line.recvfrom(2000)
        protocol, inner = (data[20], data[54:]) if six else (data[23], data[34:])
        if where[2] != socket.PACKET_OUTGOING and protocol == 6 and inner[13] == 2:
            assert inner[20:22] == b"\x02\x04"
            return int.from_bytes(inner[22:24], "big")


def test_the_kernel_answers_as_the_acl_does(router: tuple[str, str]) -> None:
    one, _ = router
    rng = random.Random(7)  # noqa: S311 (failures repeat)
    ends = list(TREE)
    with sending(router) as send:
        for _ in range(TABLES):
            rules = [
                (rng.choice(("allow", "deny")), *rng.choices(ends, k=2), rng.choice(TRAFFIC))
                for _ in range(rng.randrange(12))
            ]
            state = StillState(TREE, rules)
            put_table(one, state)
            asked = [
                (source, target, probe, six, is_middle)
                for source, target in itertools.permutations(ENDPOINTS, 2)
                for probe in PROBES
                for six in (False, True)
                # What is no first packet of TCP may be an answer.
                for is_middle in ((False, True) if probe == (6, 443) else (False,))
            ]
            packets = [
                (
                    address(state, source, six=six),
                    address(state, target, six=six),
                    58 if six and probe[0] == 1 else probe[0],
                    probe[1],
                    six,
                    is_middle,
                )
                for source, target, probe, six, is_middle in asked
            ]
            came = send(packets)
            wrong = [
                (*question, number in came, rules)
                for number, question in enumerate(asked)
                if (number in came) is not passes(state, *question)
            ]
            assert wrong == []
    listed = run("ip", "netns", "exec", one, "nft", "list", "tables")
    assert listed == f"table inet {table_name('seip0')}\n"


def test_what_was_begun_into_a_subnet_ends_when_it_is_another_customers(
    router: tuple[str, str],
) -> None:
    one, _ = router
    run("ip", "-n", one, "route", "add", "192.168.7.0/24", "via", "192.0.2.2", "dev", "seip0")
    user, host = "10.64.0.11", "192.168.7.9"
    question, answer = (
        (user, host, 17, 53, False, False),
        (host, user, 17, 40_000, False, False, 53),
    )

    def carried_by(customer: str) -> None:
        book = SubnetBook(MESH)
        book.put("user", {"kind": "endpoint", "parent": "acme", "address": user})
        gate = {"kind": "endpoint", "parent": customer, "address": "10.64.0.10"}
        book.put("gate", {**gate, "routes": ["192.168.7.0/24"]})
        text = subnets_table(book, interface="seip0")
        run("ip", "netns", "exec", one, "nft", "-f", "-", text=text)

    with sending(router) as send:
        carried_by("acme")
        assert send([answer]) == set()
        assert send([question]) == {0}
        assert send([answer, question]) == {0, 1}
        carried_by("beta")
        assert send([question]) == set()
        carried_by("acme")
        assert send([question, answer]) == {0, 1}


def test_a_server_is_not_reached_at_the_addresses_of_its_other_networks(
    router: tuple[str, str],
) -> None:
    one, other = router
    for host, device in (("10.64.0.1/32", "seip0"), ("10.5.0.1/32", "lo")):
        run("ip", "-n", one, "addr", "add", host, "dev", device)
    run("ip", "-n", one, "link", "set", "lo", "up")
    run("ip", "-n", other, "route", "add", "10.0.0.0/8", "via", "192.0.2.1")

    def reached() -> list[bool]:
        ping = ("ip", "netns", "exec", other, "ping", "-c", "1", "-W", "1")
        return [
            subprocess.run([*ping, to], capture_output=True, check=False).returncode == 0
            for to in ("10.64.0.1", "10.5.0.1")
        ]

    assert reached() == [True, True]
    put_table(one, StillState(TREE))
    assert reached() == [True, False]


def test_a_table_that_somebody_edited_is_told_from_one_that_was_left_alone(
    router: tuple[str, str],
) -> None:
    book = book_of(StillState(TREE))
    name = f"inet {table_name('seip0')}"
    text = whole_table(book, interface="seip0", ranges=default_ranges(), mesh_id=MESH)
    host = Host(name=router[0], address="", wireguard="seip0")
    table = KernelTable(table_name("seip0"))
    with host.entered():
        table.replace(text)
        assert table.is_intact()
        table.run(f"add element {name} ported {{ 0:1 . 2 . 6-6 . 80-80 : goto pass }}\n")
        table.run(deeper(book, interface="seip0"))
        run("nft", "add table inet another")
        assert table.is_intact()
        for edit in (
            f"flush chain {name} forward_hook",
            f"insert rule {name} forward_hook accept",
            f"flush table {name}",
            f"delete table {name}",
            "flush ruleset",
        ):
            run("nft", edit)
            assert not table.is_intact()
            table.replace(text)
            assert table.is_intact()
        table.close()
