"""Who is who is read in the ledger as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.base.ledger.author import Author
from services.edge.punch.roll import LedgerParties, addresses_gone
from services.kernel.ids import node_id_of
from services.kernel.records import record_from_value
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.world import key_of

if TYPE_CHECKING:
    from tests.fakes.one_server import OneServer


async def endpoint(one: OneServer, name: str) -> str:
    """Let an endpoint in; return its address."""
    record = one.join_record(await one.token(), key_of(f"endpoint {name}"), name)
    node = await one.enroll.redeem_endpoint(record_from_value(record))
    return str(node["address"])


async def test_an_endpoint_is_known_by_its_address_and_carried_by_who_holds_its_slice(
    one: OneServer, neighbour: Neighbour
) -> None:
    parties = LedgerParties(one.ledger)
    address = await endpoint(one, "laptop")
    far = await neighbour.endpoint("phone")
    await hand_over(neighbour.ledger, one.ledger)
    here, there = parties.party(address), parties.party(far)
    assert here is not None
    assert there is not None
    assert here.node_id == node_id_of(key_of("endpoint laptop").public_key)
    assert (here.carrier, there.carrier) == (one.ledger.server_id, neighbour.server_id)
    assert len(here.key) == len(there.key) == 32
    assert parties.party("10.64.0.200") is None


async def test_a_server_is_known_by_its_backbone_address_as_long_as_it_is_in_the_roster(
    one: OneServer, tmp_path: Any
) -> None:
    parties = LedgerParties(one.ledger)
    own = parties.backbone_of(one.ledger.server_id)
    assert own is not None
    assert parties.server_at(own) == one.ledger.server_id
    assert parties.server_at("172.16.3.200") is None
    other = await Neighbour.join(one, tmp_path / "two")
    backbone = parties.backbone_of(other.server_id)
    assert backbone is not None
    assert parties.server_at(backbone) == other.server_id
    await other.stop()


async def test_an_endpoint_that_is_removed_is_told_as_gone(one: OneServer) -> None:
    gone: list[str] = []
    one.ledger.subscribe(["tree"], lambda changes: gone.extend(addresses_gone(changes)))
    address = await endpoint(one, "laptop")
    assert gone == []
    key = key_of("endpoint laptop")
    author = Author(key=key, mesh_id=one.ledger.mesh_id, clock=one.clock)
    left = author.record("tree.remove", {"node": node_id_of(key.public_key)})
    await one.ledger.submit([left])
    assert gone == [address]
    assert LedgerParties(one.ledger).party(address) is None
