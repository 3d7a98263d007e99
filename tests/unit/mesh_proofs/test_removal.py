"""Anybody may show that the root removed a server; nothing but the root's signature shows it."""

from __future__ import annotations

import copy

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.mesh.proofs.errors import RefusedError
from services.mesh.proofs.removal import RosterWalk
from tests.fakes.thoroughness import examples
from tests.fakes.world import World, key_of

WORLD = World(3)
GONE = WORLD.servers[2]
WORLD.change(WORLD.servers[0], removed=[WORLD.removal(GONE)])
CHANGES = [record.value() for record in WORLD.charter.records[1:]]


def look(records, *, after: int = 0, server_id: str = GONE.id):
    walk = RosterWalk(WORLD.mesh_id)
    walk.number = after
    is_removed = walk.shows_removal(records, server_id)
    return walk.number, is_removed


def test_the_change_that_removes_it_says_so() -> None:
    assert look(CHANGES) == (4, True)
    assert look(CHANGES[:3]) == (3, False)
    assert look(CHANGES[3:], after=3) == (4, True)
    assert look([], after=4) == (4, False)
    assert look(CHANGES, server_id=WORLD.servers[1].id) == (4, False)


def test_changes_of_another_number_and_of_another_root_are_refused() -> None:
    with pytest.raises(RefusedError, match="left out"):
        look(CHANGES[3:])
    body = {**WORLD.charter.records[-1].body, "number": 5}
    forged = WORLD.signed(key_of("other root"), "roster.change", body)
    with pytest.raises(RefusedError, match="not by the root"):
        look([*CHANGES, forged.value()], server_id=WORLD.servers[1].id)


@given(data=st.data())
@examples(200)
def test_whatever_is_changed_shows_nothing(data) -> None:
    records = copy.deepcopy(CHANGES)
    record = data.draw(st.sampled_from(records))
    name = data.draw(st.sampled_from(sorted(record)))
    other = data.draw(st.none() | st.integers() | st.text() | st.just({}))
    assume(other != record[name])
    record[name] = other
    with pytest.raises(RefusedError):
        look(records)
