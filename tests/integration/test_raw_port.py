"""Datagrams by the port that a real WireGuard device listens on: both ways, both families."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from seipd.agent.paths.rawport import Kind, RawPort
from services.base.crypto.agreement import generate_x25519
from services.edge.wireguard.model import InterfacePlan, PeerConfig, Route
from services.edge.wireguard.service import WireGuardService
from services.kernel.errors import InputError
from services.runtime.clock import SystemClock
from services.runtime.tasks import TaskOwner
from tests.fakes.hosts import two_hosts
from tests.fakes.namespaces import udp_in

if TYPE_CHECKING:
    import socket

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

PORT = 51940
OUR_ADDRESS, OUR_ADDRESS6 = "10.64.0.10", "fd64::10"
FAMILIES = ("10.250.0.{}", "2001:db8::{}")
STUN = bytes.fromhex("010100002112a442") + bytes(12)


@pytest.fixture
async def stage(tmp_path):
    """Give the other host, and our raw port beside a wireguard-go that is up."""
    with two_hosts("raw") as (here, there), here.entered():
        for number, host in ((1, here), (2, there)):
            host.run(*f"ip addr add 2001:db8::{number}/64 dev eth0 nodad".split())
        wireguard = WireGuardService(
            interface=here.wireguard,
            listen_port=PORT,
            private_key=generate_x25519()[0],
            run_dir=tmp_path,
            clock=SystemClock(),
            tasks=TaskOwner("test"),
            plan=InterfacePlan(
                addresses=(f"{OUR_ADDRESS}/32", f"{OUR_ADDRESS6}/128"),
                routes=(Route(destination="10.64.0.0/10", source=OUR_ADDRESS),),
            ),
        )
        await wireguard.start()
        port = RawPort(inner=(OUR_ADDRESS, OUR_ADDRESS6))
        port.open(wireguard.status().listen_port)
        try:
            yield there, port, wireguard
        finally:
            port.close()
            await wireguard.stop(down=True)


async def received(sock: socket.socket) -> tuple[bytes, tuple]:
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        return await loop.sock_recvfrom(sock, 2048)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("data", [b"seiP", b"seiP" + bytes(range(99)), b"seiP" + bytes(1196)])
async def test_sends_from_the_port_of_wireguard(stage, family, data):
    there, port, _ = stage
    theirs = family.format(2)
    with udp_in(there.name, theirs) as sock:
        port.send(data, (theirs, sock.getsockname()[1]))
        got, source = await received(sock)
    # A wrong checksum would have kept it from them.
    assert (got, source[:2]) == (data, (family.format(1), PORT))
    assert port.failed_count == 0


@pytest.mark.parametrize("family", FAMILIES)
async def test_hands_on_what_is_ours_by_its_first_bytes(stage, family):
    there, port, _ = stage
    ours, theirs = family.format(1), family.format(2)
    queue: asyncio.Queue = asyncio.Queue()
    for kind in Kind:
        port.attach(kind, lambda data, address, kind=kind: queue.put_nowait((kind, data, address)))
    with udp_in(there.name, theirs) as sock:
        source = sock.getsockname()[:2]
        # A handshake of WireGuard, somebody else's, one that is too short, one to another port.
        for data in (b"\1\0\0\0" + bytes(144), b"hello, world", b"", b"sei"):
            sock.sendto(data, (ours, PORT))
        sock.sendto(b"seiP elsewhere", (ours, PORT + 1))
        for data in (b"seiP one", b"seiR two", STUN):
            sock.sendto(data, (ours, PORT))
        async with asyncio.timeout(10):
            got = [await queue.get() for _ in range(3)]
    assert got == [
        (Kind.PROBE, b"seiP one", source),
        (Kind.RELAY, b"seiR two", source),
        (Kind.STUN, STUN, source),
    ]
    assert queue.empty()


async def test_what_comes_to_an_inner_address_is_dropped(stage):
    there, port, _ = stage
    queue: asyncio.Queue = asyncio.Queue()
    port.attach(Kind.PROBE, lambda data, address: queue.put_nowait(data))
    there.run(*["ip", "route", "add", "10.64.0.0/10", "via", "10.250.0.1"])
    there.run(*["ip", "route", "add", "fd64::/64", "via", "2001:db8::1"])
    for inner in (OUR_ADDRESS, OUR_ADDRESS6):
        theirs = FAMILIES[":" in inner].format(2)
        with udp_in(there.name, theirs) as sock:
            sock.sendto(b"seiP inside", (inner, PORT))
            sock.sendto(b"seiP outside", (FAMILIES[":" in inner].format(1), PORT))
            async with asyncio.timeout(10):
                assert await queue.get() == b"seiP outside"
    assert queue.empty()


async def test_wireguard_goes_on_beside_it(stage):
    there, port, wireguard = stage
    with udp_in(there.name, "10.250.0.2", PORT) as sock:
        for _ in range(20):
            port.send(b"seiP" + bytes(100), ("10.250.0.2", PORT))
        await wireguard.set_peer(
            PeerConfig(
                public_key=generate_x25519()[1], endpoint=("10.250.0.2", PORT), keepalive_seconds=5
            )
        )
        first_bytes = {(await received(sock))[0][:4] for _ in range(21)}
    assert first_bytes == {b"seiP", b"\1\0\0\0"}


async def test_what_is_too_long_or_can_not_go_disturbs_nothing(stage):
    _, port, _ = stage
    with pytest.raises(InputError):
        port.send(bytes(1201), ("10.250.0.2", PORT))
    port.send(b"seiP", ("203.0.113.1", PORT))
    assert port.failed_count == 1
    port.close()
    port.send(b"seiP", ("10.250.0.2", PORT))
    assert port.dropped_count == 1
