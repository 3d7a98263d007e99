"""Where an endpoint may be reached, as it finds out and tells."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from seipd.agent.answer import stun_ports_of
from seipd.agent.paths import places
from seipd.agent.paths.places import Places, candidates_of
from services.edge.stun.messages import (
    BINDING_SUCCESS,
    Attribute,
    Message,
    encode,
    encode_xor_address,
    parse,
)

LOCAL = [ip_interface(text) for text in ("192.168.1.5/24", "2001:db8::5/64")]


class Port:
    """WireGuard's port; a router stands before it that the test describes."""

    port = 40000

    def __init__(self, mapped) -> None:
        self._mapped = mapped
        self.asked: list[tuple[str, int]] = []
        self.listener = None

    def attach(self, kind, listener) -> None:
        self.listener = listener

    def send(self, data: bytes, address) -> None:
        self.asked.append(address)
        mapped = self._mapped(address)
        if mapped is None or self.listener is None:
            return
        transaction = parse(data).transaction
        value = encode_xor_address(mapped, transaction)
        attributes = ((Attribute.XOR_MAPPED_ADDRESS, value),)
        answer = Message(kind=BINDING_SUCCESS, transaction=transaction, attributes=attributes)
        self.listener(encode(answer), address)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    async def local(interface):
        return LOCAL

    monkeypatch.setattr(places, "local_addresses", local)
    monkeypatch.setattr(places, "QUESTIONS_S", (0, 0))


async def found_by(mapped, opened=None, ports=(3478, 51941)):
    told = []
    port = Port(mapped)
    found = Places(
        port=port,
        interface="seip1",
        servers=lambda: ["203.0.113.1", "203.0.113.1", "2001:db8::1"],
        ports=lambda: ports,
        mapped=lambda: opened,
        told=lambda candidates, is_symmetric: told.append((candidates, is_symmetric)),
    )
    port.attach(None, found._heard)
    await found.look()
    candidates, is_symmetric = told[-1]
    return [one.endpoint for one in candidates], is_symmetric, port


async def test_a_router_that_keeps_a_port_is_asked_about_at_two_ports_of_one_server():
    addresses, is_symmetric, port = await found_by(
        lambda to: ("198.51.100.7", 5000) if ":" not in to[0] else ("2001:db8::5", 40000)
    )
    own6, own4 = ("2001:db8::5", 40000), ("192.168.1.5", 40000)
    assert addresses == [own6, own4, ("198.51.100.7", 5000), own6]
    assert not is_symmetric
    assert {("203.0.113.1", 3478), ("203.0.113.1", 51941)} <= set(port.asked)


async def test_a_server_that_answers_at_other_ports_is_asked_there():
    _, is_symmetric, port = await found_by(
        lambda to: ("198.51.100.7", to[1] + 1), ports=stun_ports_of({"stun_ports": [7000, 7001]})
    )
    assert {to[1] for to in port.asked} == {7000, 7001}
    assert is_symmetric
    assert stun_ports_of({}) == stun_ports_of({"stun_ports": []}) == (3478, 51941)


async def test_stn_10_two_ports_of_a_server_that_see_two_ports_tell_a_symmetric_router():
    _, is_symmetric, _ = await found_by(lambda to: ("198.51.100.7", to[1] + 1))
    assert is_symmetric


async def test_with_no_answer_the_own_addresses_are_told():
    addresses, is_symmetric, _ = await found_by(lambda to: None, opened=("198.51.100.9", 6000))
    assert addresses[-1] == ("198.51.100.9", 6000)
    assert ("192.168.1.5", 40000) in addresses
    assert not is_symmetric


def test_a_machine_with_many_addresses_tells_eight_ipv6_first():
    many = [ip_interface(f"10.1.{n}.1/24") for n in range(20)] + LOCAL[1:]
    found = candidates_of(many, 5, seen=(), mapped=None)
    assert len(found) == 8
    assert found[0].endpoint[0] == "2001:db8::5"


async def test_a_lost_answer_takes_nothing_back_but_another_network_does():
    told, answers = [], [("198.51.100.7", 5000)]
    port = Port(lambda to: answers[0] if ":" not in to[0] else None)
    found = Places(
        port=port,
        interface="seip1",
        servers=lambda: ["203.0.113.1"],
        ports=lambda: (3478, 51941),
        mapped=lambda: None,
        told=lambda candidates, is_symmetric: told.append([one.endpoint for one in candidates]),
    )
    port.attach(None, found._heard)
    await found.look()
    answers[0] = None
    await found.look()
    assert ("198.51.100.7", 5000) in told[-1]
    found.changed()
    await found.look()
    assert ("198.51.100.7", 5000) not in told[-2] + told[-1]
