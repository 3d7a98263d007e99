"""Those who may have a tunnel to an endpoint that is gone hear of it."""

from __future__ import annotations

from typing import Any

import pytest

from seipd.agent.paths.talk import HERE_S
from services.base.ledger.watching import Change
from services.edge.punch.book import MAX_TOLD, SILENT_S
from services.edge.punch.roll import addresses_gone
from tests.fakes.rendezvous import FakeEndpoint, FakeMesh


@pytest.mark.parametrize("server_count", [1, 2])
def test_servers_know_who_was_told_of_an_endpoint_that_is_gone(server_count: int) -> None:
    mesh = FakeMesh()
    servers = [mesh.server(number + 1) for number in range(server_count)]
    one, other = mesh.endpoint(10, servers[0]), mesh.endpoint(11, servers[-1])
    mesh.run(0.5)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)

    def told_of(endpoint: FakeEndpoint) -> list[str]:
        return [
            node
            for server in mesh.servers.values()
            for node in server.book.told_of(endpoint.address)
        ]

    assert told_of(other) == ["n10"]
    assert told_of(one) == ["n11"]
    mesh.endpoints.pop(one.address)
    mesh.run(SILENT_S + HERE_S)
    assert told_of(other) == []
    assert told_of(one) == ["n11"]


def test_of_many_that_an_endpoint_was_told_of_the_newest_are_remembered() -> None:
    mesh = FakeMesh()
    first = mesh.server(1)
    mesh.endpoint(10, first)
    mesh.run(0.2)
    book = mesh.servers[first].book
    one = book.get("10.64.0.10")
    assert one is not None
    for number in range(MAX_TOLD + 10):
        book.note_told(one, (0x0A400100 + number).to_bytes(4, "big"))
    assert book.told_of("10.64.1.9") == []
    assert book.told_of("10.64.1.10") == ["n10"]


def test_an_endpoint_is_gone_where_its_key_address_or_customer_is_another() -> None:
    def change(old: Any, new: Any) -> Change:
        return Change(view="tree", key="n1", old=old, new=new)

    node = {"address": "10.64.0.10", "wireguard_key": "k", "parent": "c", "name": "n"}
    for new in (None, {**node, "wireguard_key": "l"}, {**node, "parent": "d"}):
        assert addresses_gone([change(node, new)]) == ["10.64.0.10"]
    assert addresses_gone([change(node, {**node, "name": "m"})]) == []
    assert addresses_gone([change({"kind": "customer"}, None)]) == []
    assert addresses_gone([change(None, node)]) == []
