"""An endpoint that moved to another server keeps its address; every server sends to the new one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from services.base.ledger.author import Author
from services.kernel.errors import ForbiddenError, InputError, RejectedError, SeipdError
from services.kernel.ids import node_id_of
from services.kernel.records import record_from_value
from tests.fakes.neighbour import hand_over
from tests.fakes.peering import peering_of, settled, wireguard_key_of
from tests.fakes.world import key_of

if TYPE_CHECKING:
    from tests.fakes.one_server import OneServer


async def endpoint(one: OneServer, name: str) -> str:
    """Let an endpoint in; return its address."""
    record = one.join_record(await one.token(), key_of(f"endpoint {name}"), name)
    node = await one.enroll.redeem_endpoint(record_from_value(record))
    return node["address"]


def attach_record(one: OneServer, server_id: str, moves: int, name: str = "laptop"):
    key = key_of(f"endpoint {name}")
    body = {"node": node_id_of(key.public_key), "server": server_id, "moves": moves}
    return signed(one, key, body)


def signed(one: OneServer, key, body):
    author = Author(key=key, mesh_id=one.ledger.mesh_id, clock=one.clock)
    return author.record("tree.attach", body)


def carriers(device, address: str) -> list[bytes]:
    """Return the peers that this very address is sent to."""
    return [key for key, peer in device.peers.items() if f"{address}/32" in peer.allowed_ips]


async def test_a_guest_is_a_peer_of_its_host_and_its_home_sends_there(one, others) -> None:
    second, third = others
    address = await second.endpoint("laptop")
    await hand_over(second.ledger, third.ledger)
    watching, far_device = await peering_of(third.ledger)
    home, home_device = await peering_of(second.ledger)
    host, host_device = await peering_of(one.ledger)
    node = await one.enroll.attach(attach_record(one, one.ledger.server_id, 1))
    assert (node["address"], node["at"]) == (address, one.ledger.server_id)
    for other in others:
        await hand_over(one.ledger, other.ledger)
    await settled()
    (laptop,) = carriers(host_device, address)
    assert host_device.peers[laptop].endpoint is None
    for device in (home_device, far_device):
        assert carriers(device, address) == [wireguard_key_of(one)]
    for peering in (watching, home, host):
        await peering.stop()


async def test_a_guest_that_goes_home_is_no_guest_any_more(one, others) -> None:
    second, third = others
    address = await second.endpoint("laptop")
    await one.enroll.attach(attach_record(one, one.ledger.server_id, 1))
    for other in others:
        await hand_over(one.ledger, other.ledger)
    await hand_over(second.ledger, third.ledger)
    watching, device = await peering_of(third.ledger)
    assert carriers(device, address) == [wireguard_key_of(one)]
    await second.enroll(None).attach(attach_record(one, second.server_id, 2))
    await hand_over(second.ledger, third.ledger)
    await settled()
    assert carriers(device, address) == []
    assert second.slices[0] in device.peers[second.wireguard_key].allowed_ips
    await watching.stop()


async def test_the_holder_of_the_slice_carries_again_who_was_guest_of_a_removed_server(
    one, others
) -> None:
    _, third = others
    address = await endpoint(one, "laptop")
    await hand_over(one.ledger, third.ledger)
    await third.enroll(None).attach(attach_record(one, third.server_id, 1))
    await hand_over(third.ledger, one.ledger)
    peering, device = await peering_of(one.ledger)
    assert carriers(device, address) == [third.wireguard_key]
    await one.services.root_keys.revoke(third.server_id)
    await settled()
    (back,) = carriers(device, address)
    assert device.peers[back].endpoint is None
    assert third.wireguard_key not in device.peers
    await peering.stop()


async def test_a_server_reached_through_another_takes_its_guests_along(one, others) -> None:
    second, third = others
    address = await endpoint(one, "laptop")
    await hand_over(one.ledger, third.ledger)
    await third.enroll(None).attach(attach_record(one, third.server_id, 1))
    await hand_over(third.ledger, one.ledger)
    peering, device = await peering_of(one.ledger)
    peering.set_detours({third.server_id: second.server_id})
    await settled()
    assert carriers(device, address) == [second.wireguard_key]
    await peering.stop()


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"moves": 0}, RejectedError, "stale"),
        ({"moves": "2"}, InputError, "bad_field"),
        ({"server_id": "server-0000000000000000"}, InputError, "bad_field"),
        ({"name": "stranger"}, SeipdError, "revoked"),
    ],
)
async def test_a_move_that_is_not_good_changes_nothing(one, changes, error, code) -> None:
    await endpoint(one, "laptop")
    wanted = {"server_id": one.ledger.server_id, "moves": 1, **changes}
    before = one.ledger.state.root()
    with pytest.raises(error) as refused:
        await one.enroll.attach(attach_record(one, **wanted))
    assert refused.value.code == code
    assert one.ledger.state.root() == before


async def test_an_old_move_said_again_does_not_win(one, others) -> None:
    _, third = others
    await endpoint(one, "laptop")
    await hand_over(one.ledger, third.ledger)
    early = attach_record(one, one.ledger.server_id, 1)
    await one.enroll.attach(early)
    await one.enroll.attach(early)
    await third.enroll(None).attach(attach_record(one, third.server_id, 2))
    await hand_over(third.ledger, one.ledger)
    with pytest.raises(RejectedError):
        await one.enroll.attach(early)
    assert one.ledger.state.get("tree", early.body["node"])["at"] == third.server_id


async def test_nobody_moves_another(one) -> None:
    await endpoint(one, "laptop")
    await endpoint(one, "thief")
    thief, victim = key_of("endpoint thief"), node_id_of(key_of("endpoint laptop").public_key)
    body = {"node": victim, "server": one.ledger.server_id, "moves": 1}
    with pytest.raises(SeipdError) as refused:
        await one.enroll.attach(signed(one, thief, body))
    assert refused.value.code == "revoked"
    forged = attach_record(one, one.ledger.server_id, 1)
    altered = replace(forged, actor_sig=bytes(64))
    with pytest.raises(ForbiddenError):
        await one.enroll.attach(altered)
