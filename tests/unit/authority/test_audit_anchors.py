"""What a server said of its signer's audit stands in the state, and can't be said smaller."""

from __future__ import annotations

import pytest

from services.authority.rootkeys.anchors import MAX_LOGS, anchored_of
from services.kernel.ids import b64u_encode
from tests.fakes.world import World

ROOT = "ab" * 32


def word(size: int = 5, month: str = "2026-11", *, key: int = 0, root: str = ROOT) -> dict:
    return {"key": b64u_encode(bytes([key]) * 32), "month": month, "root": root, "size": size}


def say(world: World, by: int, body: dict, *, key=None):
    server = world.servers[by]
    record = world.signed(key or server.key, "audit.anchor", body)
    world.write(server, record)
    return record


def refusal(world: World, record) -> str | None:
    return world.folded().items_of([record.id])[0].refusal


def held(world: World, of: int) -> list[dict]:
    return anchored_of(world.folded().state, world.servers[of].id)


def test_each_server_speaks_of_its_own_signer() -> None:
    world = World(2)
    first = say(world, 0, word())
    say(world, 1, word(9, key=1))
    (said,) = held(world, 0)
    assert said.items() >= (word() | {"record": first.id}).items()
    assert [one["size"] for one in held(world, 1)] == [9]


def test_an_audit_only_grows() -> None:
    world = World(1)
    say(world, 0, word(5))
    assert refusal(world, say(world, 0, word(5))) == "no_change"
    for smaller in (word(4), word(5, root="cd" * 32), word(9, "2026-10")):
        assert refusal(world, say(world, 0, smaller)) == "rejected_stale"
    assert refusal(world, say(world, 0, word(6))) is None
    assert refusal(world, say(world, 0, word(1, "2026-12"))) is None
    assert [(one["month"], one["size"]) for one in held(world, 0)] == [("2026-12", 1)]


def test_of_many_signers_the_newest_are_remembered() -> None:
    world = World(1)
    for key in range(MAX_LOGS + 2):
        say(world, 0, word(key=key))
    say(world, 0, word(6, key=3))
    keys = [one["key"] for one in held(world, 0)]
    assert len(keys) == MAX_LOGS
    assert keys[-1] == word(key=3)["key"]
    assert word(key=1)["key"] not in keys


def test_nobody_speaks_for_another_server() -> None:
    world = World(2)
    record = say(world, 0, word(), key=world.servers[1].key)
    assert refusal(world, record) == "rejected_unauthorised"


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 1 << 40},
        {"size": True},
        {"size": "5"},
        {"month": "2026-13"},
        {"month": "../x"},
        {"month": "2026-11\n"},
        {"root": "AB" * 32},
        {"root": "ab"},
        {"key": "short"},
        {"more": 1},
    ],
)
def test_what_is_malformed_has_no_effect(wrong) -> None:
    world = World(1)
    assert refusal(world, say(world, 0, word() | wrong)) in ("bad_field", "bad_key")
    assert held(world, 0) == []
