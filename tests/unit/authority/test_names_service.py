"""A server without a name takes the lowest free one, once, and the next if it loses it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from services.authority.names.service import NamesService
from services.base.ledger.author import Author
from services.kernel.errors import RejectedError
from tests.fakes.world import START_MS, World


class StillClock:
    def now_ms(self) -> int:
        return START_MS + 1000

    def monotonic_s(self) -> float:
        return 1.0


class WorldLedger:
    """A ledger whose feed is a list; submits are answered when they are let."""

    def __init__(self, world: World, number: int) -> None:
        self._world, self._server = world, world.servers[number]
        self.server_id, self.charter, self.mesh_id = self._server.id, world.charter, world.mesh_id
        self.fold = world.folded()
        self.submitted: list[int] = []
        self.answer = asyncio.Event()
        self.told: Any = None

    @property
    def state(self) -> Any:
        return self.fold.state

    def subscribe(self, _: Any, subscriber: Any) -> None:
        self.told = subscriber

    async def submit(self, records: Any) -> None:
        self.submitted.append(records[0].body["slot"])
        await self.answer.wait()
        self.take(self._server, records[0])

    def take(self, server: Any, record: Any) -> None:
        self._world.write(server, record)
        self.fold = self._world.folded()
        refusal = self.fold.items_of([record.id])[0].refusal
        self.told([])
        if refusal is not None:
            raise RejectedError("refused", code=refusal)


async def settled(ticks: int = 50) -> None:
    for _ in range(ticks):
        await asyncio.sleep(0)


def service_of(ledger: WorldLedger, world: World, number: int) -> NamesService:
    author = Author(key=world.servers[number].key, mesh_id=world.mesh_id, clock=StillClock())
    return NamesService(ledger=ledger, author=author, rng=random.Random(1), jitter_s=0)  # noqa: S311


async def test_it_claims_the_lowest_free_slot_and_one_at_a_time() -> None:
    world = World(3)
    ledger = WorldLedger(world, 1)
    service = service_of(ledger, world, 1)
    await service.start()
    while not ledger.submitted:
        await asyncio.sleep(0)
    for _ in range(5):
        ledger.told([])
        await settled()
    assert ledger.submitted == [1]
    ledger.answer.set()
    while not service.slots():
        await asyncio.sleep(0)
    await settled()
    assert ledger.submitted == [1]
    assert service.slots() == {world.servers[1].id: 1}
    assert service.health().detail == "ns1"
    await service.stop()


async def test_after_a_restart_it_keeps_its_claim_and_makes_none() -> None:
    world = World(2)
    world.write(world.servers[1], world.signed(world.servers[1].key, "dns.claim", {"slot": 4}))
    ledger = WorldLedger(world, 1)
    service = service_of(ledger, world, 1)
    await service.start()
    await settled()
    assert ledger.submitted == []
    assert service.health().detail == "ns4"
    await service.stop()


async def test_who_loses_a_provisional_slot_takes_the_next_free_one() -> None:
    world = World(3)
    ledger = WorldLedger(world, 2)
    ledger.answer.set()
    service = service_of(ledger, world, 2)
    await service.start()
    while not service.slots():
        await asyncio.sleep(0)
    # Another claim for the same slot, made before, arrives afterwards.
    rival = world.servers[1]
    rival.hlc = world.servers[0].hlc - (1 << 16)
    ledger.take(rival, world.signed(rival.key, "dns.claim", {"slot": 1}))
    while len(service.slots()) < 2:
        await asyncio.sleep(0)
    assert service.slots() == {rival.id: 1, world.servers[2].id: 2}
    assert ledger.submitted == [1, 2]
    await service.stop()
