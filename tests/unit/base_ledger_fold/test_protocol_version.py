"""Which protocol version is in force: kinds of a later one are void for all."""

from __future__ import annotations

import asyncio

import pytest

from services.base.crypto.signatures import verify
from services.base.ledger.fold import Fold
from services.base.ledger.roster import Charter
from services.base.ledger.state import State
from services.base.ledger.statefile import state_as_of
from services.base.ledger.ticks import word_at
from services.base.ledger.writer import Writer
from services.kernel import versions
from services.kernel.errors import UnavailableError
from services.kernel.versions import Since
from tests.fakes.world import APPLIERS, START_MS, World


class StillClock:
    def now_ms(self) -> int:
        return START_MS + 1000

    def monotonic_s(self) -> float:
        return 1.0


class IdleLog:
    size = 0

    def commit(self, entries: list[bytes]) -> None:
        raise AssertionError(entries)


def later(context, body) -> None:
    context.state.put("later", body["key"], {})


def write(world: World, kind: str, body: dict, key=None) -> str:
    record = world.signed(key or world.root, kind, body)
    world.write(world.servers[0], record)
    return record.id


def folded(world: World) -> Fold:
    fold = Fold(
        charter=Charter(world.genesis),
        state=State(),
        appliers={**APPLIERS, "test.later": Since(2, later)},
        verify=verify,
        root_at=world.root_at,
    )
    fold.publish_charter()
    for server in world.servers:
        world.deliver(fold, server)
    return fold


def refusal(fold: Fold, record_id: str) -> str | None:
    return fold.items_of([record_id])[0].refusal


def test_a_kind_counts_only_once_its_version_is_activated() -> None:
    world = World()
    before = write(world, "test.later", {"key": "a"})
    activation = write(world, "root.protocol", {"version": 2})
    after = write(world, "test.later", {"key": "b"})
    fold = folded(world)
    assert [refusal(fold, one) for one in (before, activation, after)] == [
        "not_in_version",
        None,
        None,
    ]
    assert fold.state.get("later", "a") is None
    assert fold.state.get("mesh", "protocol") == {"version": 2}


@pytest.mark.parametrize(
    "body", [{}, {"version": 1}, {"version": 3}, {"version": "2"}, {"version": 2, "x": 1}]
)
def test_only_the_next_version_is_activated(body) -> None:
    world = World()
    record = write(world, "root.protocol", body)
    assert refusal(folded(world), record) == "bad_version"


def test_gos_25_only_the_root_activates() -> None:
    world = World()
    record = write(world, "root.protocol", {"version": 2}, key=world.servers[0].key)
    assert refusal(folded(world), record) == "rejected_unauthorised"


async def test_a_server_that_lacks_the_version_takes_no_writes_and_goes_on_folding() -> None:
    world = World()
    write(world, "root.protocol", {"version": 2})
    fold = folded(world)
    writer = Writer(
        server_id=world.servers[0].id,
        fold=fold,
        log=IdleLog(),
        clock=StillClock(),
        verify=verify,
        on_fatal=lambda error: None,
        on_commit=lambda: None,
    )
    with pytest.raises(UnavailableError, match=r"protocol version 2.*upgrade seipd") as caught:
        async with asyncio.timeout(60):
            await writer.submit([world.signed(world.root, "root.protocol", {"version": 3})])
    assert caught.value.code == "read_only"
    stored = write(world, "root.protocol", {"version": 3})
    world.deliver(fold, world.servers[0])
    assert refusal(fold, stored) is None


def test_nothing_is_said_of_a_state_whose_version_is_unknown(monkeypatch) -> None:
    world = World(1)
    (first,) = world.servers
    world.attest(first, len(first.entries), START_MS // 1000)
    write(world, "root.protocol", {"version": 2})
    world.attest(first, len(first.entries), START_MS // 1000 + 30)
    before_ms, after_ms = START_MS + 10_000, START_MS + 40_000
    root = world.folded().state.root()
    known = world.folded()
    assert word_at(known, before_ms) is not None
    assert word_at(known, after_ms) is None
    assert known.state.root() == root
    monkeypatch.setattr(versions, "KNOWN_VERSION", 2)
    word = word_at(known, after_ms)
    assert word is not None
    assert state_as_of(known, word, sign=first.key.sign)
    monkeypatch.setattr(versions, "KNOWN_VERSION", 1)
    with pytest.raises(UnavailableError) as caught:
        state_as_of(known, word, sign=first.key.sign)
    assert caught.value.code == "no_agreed_state"
