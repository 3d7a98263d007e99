"""A server whose addresses contradict each other says so and gives none out."""

from __future__ import annotations

import pytest

from services.authority.ipam.service import IpamService
from services.base.ledger.author import Author
from services.kernel.errors import UnavailableError
from services.kernel.ids import node_id_of
from services.kernel.service import HealthState
from tests.fakes.world import START_MS, World, key_of

STRANGER = "00000000-0000-4000-8000-00000000dead"


class StillClock:
    def now_ms(self) -> int:
        return START_MS

    def monotonic_s(self) -> float:
        return 1.0


class StillLedger:
    """What the little mesh folds to, for a service to start on."""

    def __init__(self, world: World) -> None:
        self.state = world.folded().state
        self.charter, self.server_id = world.charter, world.servers[0].id

    def subscribe(self, views, subscriber) -> None:
        pass


@pytest.fixture
def world():
    made = World(1)
    server = made.servers[0]
    invite_id, seed = made.invite(server, "for laptop")
    made.write(server, made.redeem("laptop", invite_id, seed))
    body = {"node": laptop(), "address": "10.64.0.10"}
    made.write(server, made.signed(server.key, "ipam.assign", body))
    return made


def laptop() -> str:
    return node_id_of(key_of("endpoint laptop").public_key)


async def started(ledger, world) -> IpamService:
    author = Author(key=world.servers[0].key, mesh_id=world.mesh_id, clock=StillClock())
    service = IpamService(ledger=ledger, author=author)
    await service.start()
    return service


async def test_ipm_11_what_agrees_is_no_fault(world) -> None:
    ledger = StillLedger(world)
    assert ledger.state.get("ipam", "10.64.0.10") == laptop()
    service = await started(ledger, world)
    assert service.health().state is HealthState.OK
    assert service.pick() == "10.64.0.11"


def second_address(state) -> str:
    state.put("ipam", "10.64.0.77", laptop())
    return f"10.64.0.77 is held by {laptop()}, which has 10.64.0.10"


def address_of_nobody(state) -> str:
    state.put("ipam", "10.64.0.78", STRANGER)
    return f"10.64.0.78 is held by {STRANGER}, which is not in the tree"


def same_address_twice(state) -> str:
    state.put("tree", STRANGER, {**state.get("tree", laptop()), "name": "twin"})
    state.put("ipam", "10.64.0.10", STRANGER)
    state.put("tree", laptop(), {**state.get("tree", laptop()), "address": "10.64.0.99"})
    return f"10.64.0.99 is the address of {laptop()} and held by nobody"


def holder_without_address(state) -> str:
    node = state.get("tree", laptop())
    state.put("tree", laptop(), {key: node[key] for key in node if key != "address"})
    return f"10.64.0.10 is held by {laptop()}, which has None"


@pytest.mark.parametrize(
    "damage", [second_address, address_of_nobody, same_address_twice, holder_without_address]
)
async def test_ipm_11_the_start_names_it_and_nothing_is_given_out(world, damage, caplog) -> None:
    ledger = StillLedger(world)
    sentence = damage(ledger.state)
    service = await started(ledger, world)
    assert sentence in service.health().detail
    assert service.health().state is HealthState.DEGRADED
    assert sentence in caplog.text
    with pytest.raises(UnavailableError) as caught:
        service.pick()
    assert caught.value.code == "read_only"


async def test_ipm_11_ten_thousand_faults_are_ten_lines(world, caplog) -> None:
    ledger = StillLedger(world)
    for number in range(10_000):
        ledger.state.put("ipam", f"10.64.{number // 250}.{number % 250}", STRANGER)
    service = await started(ledger, world)
    assert len(caplog.records) == 10
    assert len(service.health().detail) < 300
