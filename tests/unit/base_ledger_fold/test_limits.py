"""What counts of a feed whose author told two stories: what the witnesses had co-signed."""

from __future__ import annotations

import itertools

import pytest

from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint
from services.base.ledger.equivocation import EQUIVOCATION_KIND, EquivocationProof
from services.base.ledger.feed import Attest, Cosignature, feed_origin
from services.base.ledger.fold import HorizonError
from services.base.ledger.limits import KEPT_KIND, Kept, kept_from_body
from services.base.ledger.note import cosignature_input
from services.kernel.errors import InputError
from tests.fakes.world import START_MS, Server, World, key_of

START_S = START_MS // 1000


def lie(world: World, liar: Server, by: Server) -> None:
    """Let a server bring the proof that another signed two roots at one size."""
    notes = [
        sign_checkpoint(
            Checkpoint(origin=feed_origin(world.mesh_id, liar.id, 1), size=3, root=root),
            signer=liar.key,
        )
        for root in (b"a" * 32, b"b" * 32)
    ]
    proof = EquivocationProof(
        mesh_id=world.mesh_id,
        key=liar.key.public_key,
        epoch=1,
        smaller=notes[0],
        larger=notes[1],
        root=b"b" * 32,
    )
    world.write(by, world.signed(by.key, EQUIVOCATION_KIND, proof.value()))


def keep(world: World, liar: Server, by: Server, size: int, *, forged: bool = False) -> None:
    """Let a server bring what the witnesses co-signed."""
    root = world.root_at(liar.id, size)
    origin = feed_origin(world.mesh_id, liar.id, 1)
    text = Checkpoint(origin=origin, size=size, root=root).text()
    witness = world.servers[0]
    key = key_of("stranger") if forged else witness.key
    signature = key.sign(cosignature_input(text, START_S))
    attest = Attest(
        size=size,
        root=root,
        signatures=(Cosignature(witness=witness.id, time_s=START_S, signature=signature),),
    )
    kept = Kept(
        key=liar.key.public_key, epoch=1, roster=world.charter.number, attest=attest
    ).value()
    world.write(by, world.signed(by.key, KEPT_KIND, kept))


def invites(fold) -> set[str]:
    return {key for _, key, _ in fold.state.scan("invite")}


def liar_with_invites() -> tuple[World, Server, list[str], list[int]]:
    world = World(3)
    world.attest(world.servers[0], len(world.servers[0].entries), START_S - 5)
    liar = world.servers[1]
    names, sizes = [], []
    for name in ("one", "two", "three"):
        names.append(world.invite(liar, name)[0])
        sizes.append(len(liar.entries))
    return world, liar, names, sizes


def test_of_a_liar_nothing_counts_that_no_witness_saw() -> None:
    world, liar, names, _ = liar_with_invites()
    fold = world.folded()
    assert invites(fold) == set(names)
    lie(world, liar, world.servers[2])
    world.deliver(fold, world.servers[2])
    assert invites(fold) == set()
    assert {item.error.code for item in fold.voided} == {"untrusted"}
    assert fold.state.root() == world.folded().state.root()


def test_what_the_witnesses_co_signed_counts_and_the_most_of_it_wins() -> None:
    world, liar, names, sizes = liar_with_invites()
    fold = world.folded()
    lie(world, liar, world.servers[2])
    for size, counted in ((sizes[0], 1), (sizes[1], 2), (sizes[0], 2)):
        keep(world, liar, world.servers[0], size)
        fold = world.updated(fold)
        assert invites(fold) == set(names[:counted])
        assert fold.state.root() == world.folded().state.root()


def test_the_order_in_which_feeds_come_makes_no_difference() -> None:
    world, liar, names, sizes = liar_with_invites()
    lie(world, liar, world.servers[2])
    keep(world, liar, world.servers[0], sizes[1])
    world.attest(world.servers[0], len(world.servers[0].entries), START_S)
    world.attest(liar, sizes[1], START_S + 1)
    roots = set()
    for order in itertools.permutations(world.servers):
        fold = world.fold()
        fold.publish_charter()
        for server in order:
            try:
                world.deliver(fold, server)
            except HorizonError:
                fold = world.folded()
        assert invites(fold) == set(names[:2])
        roots.add(fold.state.root())
    assert len(roots) == 1


def test_kept_without_a_lie_or_without_the_witnesses_changes_nothing() -> None:
    world, liar, names, sizes = liar_with_invites()
    keep(world, liar, world.servers[0], sizes[0])
    assert invites(world.folded()) == set(names)
    world, liar, _, sizes = liar_with_invites()
    lie(world, liar, world.servers[2])
    keep(world, liar, world.servers[0], sizes[2], forged=True)
    assert invites(world.folded()) == set()


def test_of_a_removed_liar_the_smaller_of_both_counts() -> None:
    world, liar, names, sizes = liar_with_invites()
    lie(world, liar, world.servers[2])
    keep(world, liar, world.servers[0], sizes[1])
    world.change(world.servers[0], removed=[world.removal(liar, sizes[0])])
    assert invites(world.folded()) == set(names[:1])


def test_what_can_t_be_taken_back_asks_to_begin_anew() -> None:
    world, liar, _, sizes = liar_with_invites()
    for server in world.servers:
        world.attest(server, len(server.entries), START_S)
    fold = world.fold(retain_settled=1)
    fold.publish_charter()
    for server in (world.servers[0], liar):
        world.deliver(fold, server)
    assert fold.feeds[liar.id].trimmed == sizes[1]
    lie(world, liar, world.servers[2])
    with pytest.raises(HorizonError):
        world.deliver(fold, world.servers[2])


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 0},
        {"roster": 0},
        {"size": 0},
        {"key": "short"},
        {"more": 1},
        {"signatures": ["A" * 106]},
        {"signatures": ["A" * 107]},
        {"signatures": [None]},
    ],
)
def test_a_malformed_word_on_what_counts_is_refused(changes) -> None:
    good = Kept(
        key=key_of("liar").public_key,
        epoch=1,
        roster=1,
        attest=Attest(size=1, root=bytes(32), signatures=()),
    ).value()
    assert kept_from_body(good).attest.size == 1
    with pytest.raises(InputError):
        kept_from_body({**good, **changes})


@pytest.mark.parametrize("part", [1, 2, 3, 4, 5, 6])
def test_what_was_kept_settles_alike_when_the_feed_comes_later_and_in_parts(part) -> None:
    world, liar, names, _ = liar_with_invites()
    world.attest(liar, len(liar.entries), START_S - 3)
    names.append(world.invite(liar, "four")[0])
    lie(world, liar, world.servers[2])
    keep(world, liar, world.servers[0], len(liar.entries))
    world.attest(world.servers[0], len(world.servers[0].entries), START_S)
    fold = world.fold()
    fold.publish_charter()
    world.deliver(fold, world.servers[0])
    world.deliver(fold, world.servers[2])
    world.deliver(fold, liar, part)
    assert invites(fold) <= set(names)
    fold = world.updated(fold)
    anew = world.folded()
    times = {item.record.id: item.settled_ms for item in anew.settled_until()}
    assert {item.record.id: item.settled_ms for item in fold.settled_until()} == times
    assert len(times) >= len(names)
    assert invites(fold) == invites(anew) == set(names)
    assert fold.state.root() == anew.state.root()


def test_more_that_was_kept_asks_to_begin_anew_where_the_less_has_settled_something() -> None:
    world, liar, names, sizes = liar_with_invites()
    lie(world, liar, world.servers[2])
    keep(world, liar, world.servers[0], sizes[0])
    world.attest(liar, sizes[1], START_S - 3)
    fold = world.fold()
    fold.publish_charter()
    for server in (world.servers[0], world.servers[2], liar):
        world.deliver(fold, server)
    assert invites(fold) == set(names[:1])
    keep(world, liar, world.servers[0], len(liar.entries))
    with pytest.raises(HorizonError):
        world.deliver(fold, world.servers[0])
    assert invites(world.folded()) == set(names)
