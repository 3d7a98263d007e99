"""Who asks a relay very often is not heard, and takes nobody else's turn."""

from __future__ import annotations

import pytest

from services.edge.relay.service import ALL_ALLOCATES_PER_MINUTE, ALLOCATES_PER_MINUTE
from services.edge.relay.sockets import Arrival
from tests.unit.edge_relay.test_relay_service import service


@pytest.fixture
async def relay():
    relay = service()
    await relay.start()
    yield relay
    await relay.stop()


def asks(relay, host: str) -> bool:
    """Say whether a question of a host is looked at."""
    before = relay.status().asked["malformed"]
    arrival = Arrival(data=b"x", address=(host, 40_000), host="127.0.0.1", interface="")
    relay._on_arrival(arrival, None)
    return relay.status().asked["malformed"] == before + 1


async def test_rly_05_a_flood_from_one_host_stops_no_other(relay) -> None:
    heard = sum(asks(relay, "203.0.113.5") for _ in range(10 * ALLOCATES_PER_MINUTE))
    assert heard <= ALLOCATES_PER_MINUTE + 60
    assert asks(relay, "203.0.113.6")


async def test_rly_05_who_has_a_network_of_ipv6_addresses_is_one_host(relay) -> None:
    """Else one home could ask as often as all hosts together may."""
    flood = (f"2001:db8:0:5:{number >> 8:x}::{number & 255:x}" for number in range(10_000))
    heard = sum(asks(relay, host) for host in flood)
    assert heard <= ALLOCATES_PER_MINUTE + 60 < ALL_ALLOCATES_PER_MINUTE
    assert asks(relay, "2001:db8:0:6::1")
    assert asks(relay, "203.0.113.6")
