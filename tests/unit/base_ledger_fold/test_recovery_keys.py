"""The recovery key in force is the one that the roster named before the place of a link."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.ledger.roster import Charter
from services.kernel.errors import RejectedError
from services.kernel.ids import b64u_encode
from tests.fakes.rootlinks import rotation
from tests.fakes.thoroughness import examples
from tests.fakes.world import World, key_of

if TYPE_CHECKING:
    from services.kernel.records import Record


def name_key(world: World, name: str) -> Record:
    """Have the root name a recovery key."""
    return world.change(world.servers[0], recovery_key=b64u_encode(key_of(name).public_key))


def recovered(world: World, place: Charter, by: str, key: str = "recovered") -> Record:
    return rotation(world, place, key_of(by), key_of(key), endorser="recovery")


def copy_of(world: World, records: list[Record]) -> Charter:
    charter = Charter(world.genesis)
    for record in records:
        charter.offer(record)
    return charter


def test_a_change_names_the_key_that_recovers_from_there_on() -> None:
    world = World(1)
    name_key(world, "first")
    assert world.charter.chain.recovery_key == key_of("first").public_key
    link = recovered(world, world.charter, "first")
    world.charter.offer(link)
    assert world.charter.chain.newest.public_key == key_of("recovered").public_key
    assert world.charter.chain.newest.endorser == "recovery"


def test_rkc_15_a_key_that_another_followed_recovers_nothing_after_it() -> None:
    world = World(1)
    name_key(world, "first")
    name_key(world, "second")
    with pytest.raises(RejectedError) as caught:
        world.charter.offer(recovered(world, world.charter, "first"))
    assert caught.value.code == "root_unendorsed"
    world.charter.offer(recovered(world, world.charter, "second"))
    assert world.charter.chain.newest.generation == 2


@examples(60)
@given(data=st.data())
def test_all_agree_when_the_root_named_a_key_that_nobody_heard_of_before_it_was_lost(
    data: st.DataObject,
) -> None:
    world = World(2)
    first = name_key(world, "first")
    trusted = list(world.charter.records[1:-1])
    place = copy_of(world, [*trusted, first])
    by_recovery = recovered(world, place, "first")
    unheard = [name_key(world, "second"), name_key(world, "third")]
    order = data.draw(st.permutations([first, by_recovery, *unheard]))
    charter = copy_of(world, trusted)
    for record in order:
        with contextlib.suppress(RejectedError):
            charter.offer(record)
    assert [one.id for one in charter.records[1:]] == [
        *(one.id for one in trusted),
        first.id,
        by_recovery.id,
    ]
    assert charter.chain.recovery_key == key_of("first").public_key


def test_the_state_holds_the_key_that_was_named_by_a_number() -> None:
    world = World(1)
    name_key(world, "first")
    number = world.charter.number
    name_key(world, "second")
    fold = world.folded()

    def held() -> Any:
        return fold.state.get("root", "recovery")["public_key"]

    assert held() == b64u_encode(key_of("second").public_key)
    with fold.as_of(1 << 61, number):
        assert held() == b64u_encode(key_of("first").public_key)
    with fold.as_of(1 << 61, number - 1):
        assert fold.state.get("root", "recovery") is None
