"""The relay as it runs, over the loopback, without nftables."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from itertools import count

import pytest

from services.base.crypto.agreement import generate_x25519
from services.edge.relay import messages
from services.edge.relay.client import Offer, Phase, RelayClient
from services.edge.relay.keys import box_private_key
from services.edge.relay.model import Limits
from services.edge.relay.service import RelayService
from services.edge.relay.settings import RelaySettings
from services.edge.relay.tickets import sign_ticket
from services.kernel.service import HealthState
from services.runtime.clock import SystemClock
from tests.fakes.relay_book import HOUR_MS, MESH, RELAY_ID, SERVER, no_address_refused

HOST = "127.0.0.1"
DATA = b"\x04\0\0\0" + bytes(100)
INITIATION = b"\x01\0\0\0" + bytes(144)


class Endpoint:
    """A client on a socket of its own, as WireGuard's and the agent's are one."""

    def __init__(self) -> None:
        self.private, self.public = generate_x25519()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.socket.setblocking(False)
        self.client: RelayClient | None = None
        self.data: list[bytes] = []

    def meet(self, relay: RelayService, ticket: bytes) -> None:
        self.client = RelayClient(
            offer=Offer(
                relay_id=RELAY_ID,
                hosts=(HOST,),
                port=relay.port,
                box_key=relay.box_key,
                ticket=ticket,
            ),
            private_key=self.private,
            counters=count(time.time_ns()),
            random_bytes=secrets.token_bytes,
        )
        self.send_all(self.client.begin(time.monotonic()))

    def send_all(self, datagrams) -> None:
        for data, address in datagrams:
            self.socket.sendto(data, address)

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, self.client.data_address)

    def hear(self) -> None:
        while True:
            try:
                data, address = self.socket.recvfrom(4096)
            except BlockingIOError:
                break
            if data.startswith(messages.MAGIC):
                self.send_all(self.client.receive(data, address, time.monotonic()))
            else:
                self.data.append(data)
        if self.client is not None:
            self.send_all(self.client.tick(time.monotonic()))


async def until(endpoints, holds) -> None:
    async with asyncio.timeout(60):
        while not holds():
            for one in endpoints:
                one.hear()
            await asyncio.sleep(0.01)


def ticket_of(relay: RelayService, a: Endpoint, b: Endpoint, **changed) -> bytes:
    values = {
        "relay_id": RELAY_ID,
        "box_key": relay.box_key,
        "nonce": secrets.token_bytes(16),
        "keys": (a.public, b.public),
        "now_ms": SystemClock().now_ms(),
        "lifetime_ms": HOUR_MS,
        "rate_kbits": 20_000,
        "customer": bytes(16),
    }
    return sign_ticket(SERVER, MESH, **(values | changed))


def service(**changed) -> RelayService:
    settings = {
        "relay_id": RELAY_ID,
        "mesh_id": MESH,
        "box_private": box_private_key(bytes(32)),
        "hosts": (HOST,),
        "port": 0,
        "may_use_kernel": False,
        "limits": Limits(),
    }
    asked = {
        "is_server": lambda key: key == SERVER.public_key,
        "is_welcome": lambda key: True,
        "why_refused": no_address_refused,
        "statement": None,
    }
    for name, value in changed.items():
        (settings if name in settings else asked)[name] = value
    return RelayService(settings=RelaySettings(**settings), clock=SystemClock(), **asked)


@pytest.fixture
async def relay():
    relay = service()
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
def pair():
    both = Endpoint(), Endpoint()
    yield both
    for one in both:
        one.socket.close()


async def together(relay, pair, ticket=None):
    a, b = pair
    ticket = ticket or ticket_of(relay, a, b)
    a.meet(relay, ticket)
    b.meet(relay, ticket)
    await until(pair, lambda: all(one.client.phase is Phase.TOGETHER for one in pair))
    return a, b


async def test_packets_pass_both_ways_as_they_were_sent(relay, pair):
    a, b = await together(relay, pair)
    a.send(INITIATION)
    b.send(DATA)
    await until(pair, lambda: a.data and b.data)
    assert (a.data, b.data) == ([DATA], [INITIATION])
    assert relay.status().path == "userspace"
    assert relay.status().passed_packets == 2
    assert relay.health().state is HealthState.OK


async def test_only_what_is_a_wireguard_packet_passes(relay, pair):
    a, b = await together(relay, pair)
    for bad in (
        b"hello",
        b"\x05\0\0\0" + bytes(100),
        b"\x04\0\0\x01" + bytes(100),
        b"\x04\0\0\0" + bytes(20),
        b"\x01\0\0\0" + bytes(100),
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
    ):
        a.send(bad)
    a.send(DATA)
    await until(pair, lambda: b.data)
    assert b.data == [DATA]
    assert relay.status().dropped_packets == 7


async def test_rly_07_nothing_that_is_said_to_a_relay_passes_through_one(relay, pair):
    """So no relay's data port can be bound at another, and no two relays send in a circle."""
    a, b = await together(relay, pair)
    heard = []
    b.client.receive = lambda data, address, now_s: heard.append(data) or []
    for verb in range(1, 6):
        for size in (57, 69, 309, 400):
            a.send((messages.MAGIC + bytes([verb])).ljust(size, b"\0"))
    a.send(DATA)
    await until(pair, lambda: b.data)
    assert (b.data, heard) == ([DATA], [])


async def test_data_before_bind_is_dropped(relay, pair):
    a, b = pair
    a.meet(relay, ticket_of(relay, a, b))
    await until(pair, lambda: a.client.phase is Phase.ALONE)
    a.send(DATA)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(DATA, a.client.data_address)
    await until(pair, lambda: relay.status().dropped_packets == 2)
    assert relay.status().passed_packets == 0


async def test_rly_04_a_revoked_client_is_cut_off_at_once(relay, pair):
    a, b = await together(relay, pair)
    relay.revoked(a.public)
    await until(pair, lambda: b.client.phase is Phase.LOST)
    assert b.client.why == "revoked"
    b.send(DATA)
    await until(pair, lambda: relay.status().dropped_packets == 1)
    assert a.data == []


async def test_rly_04_sessions_of_a_revoked_server_end(pair):
    servers = {SERVER.public_key}
    relay = service(is_server=lambda key: key in servers)
    await relay.start()
    a, _ = await together(relay, pair)
    relay.recheck()
    assert relay.status().sessions == 1
    servers.clear()
    relay.recheck()
    await until(pair, lambda: a.client.phase is Phase.LOST)
    assert relay.status().sessions == 0
    await relay.stop()


async def test_rly_05_who_sends_more_than_its_rate_is_held_to_it(relay, pair):
    a, b = pair
    await together(relay, pair, ticket_of(relay, a, b, rate_kbits=8))
    packet = b"\x04\0\0\0" + bytes(996)
    for _ in range(60):
        a.send(packet)
    await until(pair, lambda: relay.status().passed_packets + relay.status().limited_packets == 60)
    assert 10 < relay.status().passed_packets < 40
    b.send(DATA)
    await until(pair, lambda: a.data)


async def test_a_stop_tells_everybody(relay, pair):
    a, b = await together(relay, pair)
    await relay.stop()
    await until(pair, lambda: {a.client.phase, b.client.phase} == {Phase.LOST})
    assert (a.client.why, b.client.why) == ("ended", "ended")


async def test_the_account_counts_what_was_carried(pair):
    told = []

    def statement(**account) -> bytes:
        told.append(account)
        return b"signed"

    relay = service(statement=statement)
    await relay.start()
    a, b = await together(relay, pair)
    a.send(DATA)
    await until(pair, lambda: b.data)
    a.send_all(a.client.ask_usage(time.monotonic()))
    await until(pair, lambda: a.client.statement)
    assert a.client.statement == b"signed"
    assert told[0]["key"] == a.public
    assert told[0]["bytes_from"] == len(DATA) + 28
    assert told[0]["bytes_to"] == 0
    assert relay.status().carried_bytes == len(DATA) + 28
    await relay.stop()


async def test_a_port_that_is_taken_is_tried_again():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((HOST, 0))
        relay = service(port=holder.getsockname()[1])
        await relay.start()
        assert relay.health().state is HealthState.DEGRADED
        assert "--relay-port" in relay.health().detail
    await relay._try_open()
    assert relay.health().state is HealthState.OK
    await relay.stop()


async def test_a_data_port_that_is_taken_is_passed_over(relay, pair):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((HOST, relay.port + 1))
        a, _ = await together(relay, pair)
        assert a.client.data_address == (HOST, relay.port + 2)


async def test_one_address_asks_so_often_and_no_more(relay):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        for at in range(700):
            flood.sendto(b"seiR\x01" + bytes(400), (HOST, relay.port))
            if at % 50 == 0:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            while relay._by_host.refused_count == 0:
                await asyncio.sleep(0.01)
    assert relay.status().asked["malformed"] <= 620
