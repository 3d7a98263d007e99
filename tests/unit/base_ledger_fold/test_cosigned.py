"""More than half of the witnesses: each counts once, and only with its own good signature."""

from __future__ import annotations

from services.base.crypto.signatures import verify
from services.base.ledger.checkpoint import Checkpoint
from services.base.ledger.feed import Attest, Cosignature, feed_origin
from services.base.ledger.limits import cosigned_times
from services.base.ledger.note import cosignature_input
from tests.fakes.world import START_MS, Server, World, key_of

START_S = START_MS // 1000
ROOT = b"r" * 32


def scene() -> tuple[World, str]:
    world = World(4)
    world.change(world.servers[0], witnesses=[one.id for one in world.servers[:3]])
    return world, feed_origin(world.mesh_id, world.servers[3].id, 1)


def signed(origin: str, server: Server, time_s: int, *, key=None) -> Cosignature:
    text = Checkpoint(origin=origin, size=5, root=ROOT).text()
    signature = (key or server.key).sign(cosignature_input(text, time_s))
    return Cosignature(witness=server.id, time_s=time_s, signature=signature)


def times(world: World, origin: str, *given: Cosignature) -> list[int] | None:
    attest = Attest(size=5, root=ROOT, signatures=given)
    roster = world.charter.at(world.charter.number)
    return cosigned_times(attest, origin=origin, roster=roster, verify=verify)


def test_led_20_one_witness_that_signs_twice_is_one_witness() -> None:
    world, origin = scene()
    first, second, *_ = world.servers
    twice = [signed(origin, first, START_S), signed(origin, first, START_S + 1)]
    assert times(world, origin, *twice) is None
    assert len(times(world, origin, *twice, signed(origin, second, START_S))) == 2


def test_led_20_whoever_is_no_witness_and_a_borrowed_name_count_for_nothing() -> None:
    world, origin = scene()
    first, second, _, outsider = world.servers
    good = signed(origin, first, START_S)
    assert times(world, origin, good, signed(origin, outsider, START_S)) is None
    forged = signed(origin, second, START_S, key=key_of("stranger"))
    assert times(world, origin, good, forged) is None
    other_feed = feed_origin(world.mesh_id, first.id, 1)
    assert times(world, origin, good, signed(other_feed, second, START_S)) is None
