"""A feed goes on in a new epoch: what the roster says of it, and whose signatures are good."""

from __future__ import annotations

import dataclasses

import pytest

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from services.base.ledger.feed import feed_origin, feed_verifier
from services.base.ledger.merkle import EMPTY_ROOT
from services.kernel.errors import InputError, RejectedError
from tests.fakes.world import World


def next_epoch(world: World, *, steps: int = 1, **changes):
    """Return what a change says by which the second server's feed goes on in another epoch."""
    server = world.servers[1]
    known = world.charter.server(server.id)
    certificate = dataclasses.replace(known, epoch=known.epoch + steps)
    return {"servers": [certificate.value()], "ended": [world.removal(server)], **changes}


def code_of(world: World, **changes) -> str:
    body = {
        "number": world.charter.number + 1,
        "prev": world.charter.head,
        "removed": [],
        "witnesses": [world.servers[0].id],
        **changes,
    }
    with pytest.raises((RejectedError, InputError)) as raised:
        world.charter.offer(world.signed(world.root, "roster.change", body))
    return raised.value.code


def test_the_roster_names_the_end_of_the_epoch_before():
    world, server = World(2), World(2).servers[1]
    assert world.charter.ends(server.id) == {}
    world.change(world.servers[0], **next_epoch(world))
    assert world.charter.server(server.id).epoch == 2
    end = world.charter.ends(server.id)[1]
    assert (end.size, end.root) == (
        len(world.servers[1].entries),
        world.root_at(server.id, end.size),
    )


def test_an_epoch_begins_only_where_the_last_one_ends():
    world = World(2)
    good = next_epoch(world)
    assert code_of(world, servers=good["servers"]) == "rejected_stale"
    assert code_of(world, servers=[], ended=good["ended"]) == "rejected_stale"
    assert code_of(world, **next_epoch(world, steps=2)) == "rejected_stale"
    assert code_of(world, **next_epoch(world, steps=0)) == "rejected_stale"
    assert code_of(world, **{**good, "ended": good["ended"] * 2}) == "rejected_stale"
    assert code_of(world, **{**good, "ended": [{**good["ended"][0], "size": -1}]}) == "bad_field"
    world.change(world.servers[0], **good)
    shorter = [{**good["ended"][0], "size": good["ended"][0]["size"] - 1}]
    assert code_of(world, **next_epoch(world, ended=shorter)) == "rejected_stale"


def test_what_was_signed_in_an_earlier_epoch_stays_good_and_in_a_later_one_is_not_yet():
    world = World(2)
    server = world.servers[1]
    old = world.charter.server(server.id)
    world.change(world.servers[0], **next_epoch(world))
    new = world.charter.server(server.id)
    notes = [
        sign_checkpoint(
            Checkpoint(
                origin=feed_origin(world.mesh_id, server.id, epoch), size=0, root=EMPTY_ROOT
            ),
            signer=server.key,
        )
        for epoch in (1, 2)
    ]
    verifier = feed_verifier(world.mesh_id, new)
    for epoch, note in enumerate(notes, 1):
        assert verify_checkpoint(note, verifier, verifier.name).origin.endswith(f"/{epoch}")
    before = feed_verifier(world.mesh_id, old)
    with pytest.raises(BadSignatureError):
        verify_checkpoint(notes[1], before, before.name)
    other = feed_verifier(world.mesh_id, world.charter.server(world.servers[0].id))
    with pytest.raises(BadSignatureError):
        verify_checkpoint(notes[0], other, other.name)
