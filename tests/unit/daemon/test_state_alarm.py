"""Servers that tell different states of the same feeds: noticed, shown, and proved offline."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from seipd.daemon.alarms import FRESH_S, KEPT_FILES, AlarmService
from services.kernel import canonical
from services.kernel.errors import SeipdError
from services.kernel.service import HealthState
from services.mesh.facts.contradictions import (
    KEPT_WORDS,
    NoContradictionError,
    WordWatch,
    decode_contradiction,
)
from tests.fakes.programs import run_program
from tests.unit.mesh_facts.test_state_words import fact, word, world_of_three_witnesses

if TYPE_CHECKING:
    import subprocess

    from services.base.ledger.ticks import StateWord
    from tests.fakes.world import World

OTHER = bytes(31) + b"\1"


class Bench:
    """The alarm of the first server of a mesh."""

    def __init__(self, folder, world: World) -> None:
        self.world = world
        self.now_s = 50.0
        self.folder = folder
        self.service = AlarmService(
            folder=folder,
            mesh_id=world.mesh_id,
            own_id=world.servers[0].id,
            clock=SimpleNamespace(monotonic_s=lambda: self.now_s),
        )

    def tell(self, number: int, one: StateWord) -> None:
        self.service.learn(fact(self.world, number, one))

    def written(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.json"))


@pytest.fixture
async def bench(tmp_path):
    made = Bench(tmp_path / "alarms", world_of_three_witnesses())
    await made.service.start()
    yield made
    await made.service.stop()


async def kept(bench: Bench, count: int) -> list[str]:
    while len(found := bench.written()) < count:
        await asyncio.sleep(0.005)
    return found


async def test_words_that_agree_or_are_about_other_feeds_raise_nothing(bench) -> None:
    first = word(bench.world, 1)
    for number in range(3):
        bench.tell(number, first)
    bench.tell(1, word(bench.world, 1, feeds_hash=OTHER, root=OTHER))
    bench.tell(2, word(bench.world, 2, root=OTHER))
    assert bench.service.count == 0
    assert bench.service.health().state is HealthState.OK


async def test_gos_18_two_states_of_the_same_feeds_are_shown_with_who_says_what(
    bench, caplog
) -> None:
    right, wrong = word(bench.world, 1), word(bench.world, 1, root=OTHER)
    bench.tell(0, right)
    bench.tell(1, wrong)
    bench.tell(2, right)
    names = [server.id for server in bench.world.servers]
    health = bench.service.health()
    assert health.state is HealthState.DEGRADED
    assert f"{OTHER.hex()[:16]} say {names[1]}" in health.detail
    assert f"{right.root.hex()[:16]} say {', '.join(sorted([names[0], names[2]]))}" in health.detail
    assert str(bench.folder) in health.detail
    assert bench.service.count == 1
    bench.tell(1, word(bench.world, 2, root=OTHER))
    bench.tell(0, word(bench.world, 2))
    assert bench.service.count == 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert await kept(bench, 2) == [f"{right.time_ms}.json", f"{right.time_ms + 20_000}.json"]
    bench.now_s += FRESH_S + 1
    assert bench.service.health().state is HealthState.OK


async def test_a_server_that_stands_alone_is_not_healthy_itself(bench) -> None:
    bench.tell(0, word(bench.world, 1, root=OTHER))
    bench.tell(1, word(bench.world, 1))
    assert bench.service.health().state is HealthState.DEGRADED
    bench.tell(2, word(bench.world, 1))
    assert bench.service.health().state is HealthState.FAILED


async def test_the_first_proof_and_the_newest_are_kept(bench) -> None:
    ticks = KEPT_FILES + 3
    for tick in range(1, ticks + 1):
        bench.tell(0, word(bench.world, tick))
        bench.tell(1, word(bench.world, tick, root=OTHER))
        newest = f"{word(bench.world, tick).time_ms}.json"
        while newest not in bench.written():
            await asyncio.sleep(0.005)
    found = await kept(bench, KEPT_FILES)
    assert found[0] == f"{word(bench.world, 1).time_ms}.json"
    assert found[-1] == f"{word(bench.world, ticks).time_ms}.json"
    while len(bench.written()) > KEPT_FILES:
        await asyncio.sleep(0.005)


def test_one_author_can_not_fill_the_memory() -> None:
    world = world_of_three_witnesses()
    watch = WordWatch()
    watch.learn(fact(world, 0, word(world, 1)))
    for number in range(200):
        watch.learn(fact(world, 1, word(world, 1, feeds_hash=number.to_bytes(32, "big"))))
    assert sum(len(words) for words in watch._words.values()) == KEPT_WORDS + 1
    assert watch.learn(fact(world, 2, word(world, 1, root=OTHER))) is not None


def verify(*arguments: str) -> subprocess.CompletedProcess:
    return run_program("seipd.cli.verify", "state", *arguments, "--json")


def test_the_proof_verifies_offline_and_nothing_else_does(tmp_path) -> None:
    world = world_of_three_witnesses()
    watch = WordWatch()
    watch.learn(fact(world, 0, word(world, 1)))
    found = watch.learn(fact(world, 1, word(world, 1, root=OTHER)))
    assert found is not None
    good = found.encode(world.mesh_id)
    file = tmp_path / "proof.json"
    file.write_bytes(good)
    judged = verify(str(file), "--mesh", world.mesh_id)
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["roots"][OTHER.hex()] == [world.servers[1].id]
    assert verify(str(file), "--mesh", "00" * 32).returncode == 1
    value = canonical.decode_object(good)
    alone = canonical.encode({**value, "facts": value["facts"][:1]})
    with pytest.raises(NoContradictionError):
        decode_contradiction(alone)
    bad = [
        canonical.encode({**value, "mesh_id": "00" * 32}),
        canonical.encode({**value, "mesh_id": "no"}),
        canonical.encode({**value, "v": 2}),
        canonical.encode({**value, "facts": ["AAAA", *value["facts"]]}),
        canonical.encode([]),
        *(good[:length] for length in range(0, len(good), 37)),
    ]
    for data in bad:
        with pytest.raises(SeipdError):
            decode_contradiction(data)
