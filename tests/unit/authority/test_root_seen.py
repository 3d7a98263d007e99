"""A chain that ends before what was seen is noticed, also after a restart."""

from __future__ import annotations

import pytest

from services.authority.rootkeys.seen import RootSeen
from services.kernel.errors import CorruptError
from tests.fakes.rootlinks import rotate, rotation
from tests.fakes.world import World, key_of


def seen_at(path) -> RootSeen:
    seen = RootSeen(path / "root_seen.json")
    seen.load()
    return seen


def test_rkc_04_an_older_chain_is_a_rollback_until_the_newer_one_is_heard(tmp_path) -> None:
    world = World(1)
    old = world.charter.chain
    rotate(world, "root 2")
    seen = seen_at(tmp_path)
    assert seen.trouble(old) == ""
    seen.note(world.charter.chain)
    again = seen_at(tmp_path)
    assert "ROLLBACK_DETECTED" in again.trouble(old)
    again.note(old)
    assert "ROLLBACK_DETECTED" in seen_at(tmp_path).trouble(old)
    assert again.trouble(world.charter.chain) == ""
    rotate(world, "root 3")
    assert again.trouble(world.charter.chain) == ""


def test_rkc_04_a_chain_of_the_same_length_with_another_key_is_one_too(tmp_path) -> None:
    world, other = World(1), World(1)
    rotate(world, "root 2")
    rotate(other, "another root 2")
    seen = seen_at(tmp_path)
    seen.note(world.charter.chain)
    assert "ROLLBACK_DETECTED" in seen.trouble(other.charter.chain)


def test_a_recovery_in_the_place_of_what_was_seen_is_none(tmp_path) -> None:
    world = World(1)
    rotate(world, "root 2", recovery_key=key_of("recovery").public_key)
    place = type(world.charter)(world.genesis)
    for record in world.charter.records[1:]:
        place.offer(record)
    link = rotation(world, place, key_of("recovery"), key_of("recovered"), endorser="recovery")
    rotate(world, "thief")
    seen = seen_at(tmp_path)
    seen.note(world.charter.chain)
    place.offer(link)
    assert seen.trouble(place.chain) == ""
    seen.note(place.chain)
    assert seen_at(tmp_path).trouble(world.charter.chain) != ""


def test_a_recovery_may_take_back_several_generations_and_be_followed(tmp_path) -> None:
    world = World(1)
    rotate(world, "root 2", recovery_key=key_of("recovery").public_key)
    recovered = World(1)
    rotate(recovered, "root 2", recovery_key=key_of("recovery").public_key)
    for name in ("thief", "thief's next", "thief's last"):
        rotate(world, name)
    seen = seen_at(tmp_path)
    seen.note(world.charter.chain)
    link = rotation(
        recovered, recovered.charter, key_of("recovery"), key_of("new"), endorser="recovery"
    )
    recovered.charter.offer(link)
    recovered.root = key_of("new")
    rotate(recovered, "after")
    assert seen.trouble(recovered.charter.chain) == ""
    seen.note(recovered.charter.chain)
    assert "ROLLBACK_DETECTED" in seen_at(tmp_path).trouble(world.charter.chain)


def test_rkc_04_a_recovery_that_was_known_explains_no_older_chain(tmp_path) -> None:
    world = World(1)
    rotate(world, "root 2", recovery_key=key_of("recovery").public_key)
    link = rotation(
        world, world.charter, key_of("recovery"), key_of("recovered"), endorser="recovery"
    )
    world.charter.offer(link)
    world.root, old = key_of("recovered"), world.charter.chain
    rotate(world, "next")
    seen = seen_at(tmp_path)
    seen.note(world.charter.chain)
    assert "ROLLBACK_DETECTED" in seen.trouble(old)


def test_a_damaged_file_is_named(tmp_path) -> None:
    (tmp_path / "root_seen.json").write_text("{}")
    (tmp_path / "root_seen.json").chmod(0o600)
    with pytest.raises(CorruptError):
        seen_at(tmp_path)
