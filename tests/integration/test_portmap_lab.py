"""A port of the router at home is opened by each protocol: Debian's miniupnpd grants it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from seipd.agent.portmap.gateway import gateway_to
from seipd.agent.portmap.mapper import PortMapper, ways_of
from services.edge.wireguard.links import wait_until
from tests.fakes.namespaces import inside, udp_in
from tests.fakes.natlab import Kind, nat_lab_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.natlab import NatLab

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("miniupnpd") is None, reason="miniupnpd-nftables is missing"),
]

PORT = 40_123
WAIT_S = 0.3
READY_S = 30.0


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with nat_lab_of((Kind.MAPPING, Kind.SYMMETRIC)) as built:
        built.prepare()
        yield built


@pytest.fixture
def reached(lab: NatLab):
    """Say whether a stranger's datagram to an outside port comes in."""
    namespace = lab.plan.host("e1").namespace
    server = lab.plan.servers[0]
    with udp_in(namespace, "192.168.1.2", PORT) as own:
        own.settimeout(WAIT_S)

        def is_reached(place: tuple[str, int]) -> bool:
            # A new stranger each time: the router knows old ones by its connection tracking.
            with udp_in(server.namespace, server.address) as stranger:
                stranger.sendto(b"hello", place)
            try:
                return own.recv(10) == b"hello"
            except TimeoutError:
                return False

        yield is_reached


async def test_the_gateway_is_the_one_on_the_way_to_the_server(lab: NatLab) -> None:
    with inside(lab.plan.host("e1").namespace):
        found = await gateway_to(lab.plan.servers[0].address)
    assert found is not None
    assert (found.host, found.own) == ("192.168.1.1", "192.168.1.2")
    with inside(lab.plan.servers[0].namespace):
        assert await gateway_to("198.18.0.99") is None, "on the same link there is none"


@pytest.mark.parametrize("number", range(3), ids=["PCP", "NAT-PMP", "UPnP"])
async def test_each_protocol_opens_the_port_and_closes_it(lab: NatLab, reached, number) -> None:
    with inside(lab.plan.host("e1").namespace):
        gateway = await gateway_to(lab.plan.servers[0].address)
        assert gateway is not None
        way = ways_of(gateway)[number]
        if number == 0:
            assert await wait_until(lambda: works(way), timeout_s=READY_S)
        mapped = await way.map(PORT, PORT)
        assert (mapped.by, mapped.host) == (way.name, lab.sites["e1"].wan)
        assert reached((mapped.host, mapped.port))
        again = await way.map(PORT, mapped.port)
        assert again.port == mapped.port, "renewed, not another one"
        await way.give_back(mapped, PORT)
    assert not reached((mapped.host, mapped.port))


async def works(way) -> bool:
    """Say whether the router has started."""
    try:
        await way.give_back(await way.map(PORT, PORT), PORT)
    except Exception:  # noqa: BLE001 (not there yet)
        return False
    return True


async def test_a_mapped_port_that_is_somebody_else_s_is_not_taken(lab: NatLab, reached) -> None:
    """Behind one router two machines may want the same outer port."""
    with inside(lab.plan.host("e1").namespace):
        gateway = await gateway_to(lab.plan.servers[0].address)
        assert gateway is not None
        upnp = ways_of(gateway)[2]
        first = await upnp.map(PORT + 1, PORT)
        second = await ways_of(gateway)[0].map(PORT, PORT)
        assert first.port == PORT
        assert second.port != PORT
        assert reached((second.host, second.port))
        await upnp.give_back(first, PORT + 1)
        await ways_of(gateway)[1].give_back(second, PORT)


async def test_the_agent_s_mapper_takes_the_newest_and_a_router_without_any_is_told(lab) -> None:
    told = []
    mapper = PortMapper(
        port=lambda: PORT,
        towards=lambda: lab.plan.servers[0].address,
        mesh_ranges=(),
        told=told.append,
    )
    with inside(lab.plan.host("e1").namespace):
        await mapper.look()
        assert mapper.mapped is not None
        assert mapper.mapped.by == "PCP"
        await mapper.end()
    with inside(lab.plan.host("e2").namespace):
        await mapper.look()
    assert [one and one.host for one in told] == [lab.sites["e1"].wan, None]
    assert mapper.mapped is None
    assert "no router answers to UPnP" in mapper.why
