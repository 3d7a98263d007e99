"""A server whose disk was put back: it gets its own feed back before it says anything new."""

from __future__ import annotations

import asyncio
import contextlib
import shutil

import pytest

from services.base.ledger.author import Author
from services.kernel.ids import new_uuid, node_id_of
from services.kernel.service import HealthState
from services.mesh.gossip.ownfeed import ALONE_S, OwnFeed
from tests.unit.mesh_gossip.gossip_kit import Head, World, id_of, key_of, note_of
from tests.unit.mesh_gossip.test_gossip_ledger import (
    CLOCK,
    MESH,
    ROOT,
    charter_of,
    running,
    until,
)


def decide(own: OwnFeed, *, head: Head, now_s: float, in_session=("bob", "cid"), witnesses=None):
    return own.decide(
        others=("bob", "cid", "dan"),
        witnesses=("ann", "bob", "cid", "dan") if witnesses is None else witnesses,
        in_session=in_session,
        head=head,
        now_s=now_s,
    )


def test_more_than_half_of_the_other_witnesses_have_to_hold_no_more():
    own = OwnFeed(own_id=id_of("ann"), now_s=0.0)
    own.told("bob", 1, 5)
    assert not decide(own, head=Head(1, 5), now_s=1.0)
    own.told("cid", 1, 7)
    assert not decide(own, head=Head(1, 5), now_s=1.0)
    assert not decide(own, head=Head(1, 5), now_s=ALONE_S + 60)
    assert decide(own, head=Head(1, 7), now_s=1.0)


def test_without_other_witnesses_any_server_will_do():
    own = OwnFeed(own_id=id_of("ann"), now_s=0.0)
    assert not decide(own, head=Head(1, 5), now_s=1.0, witnesses=("ann",))
    own.told("dan", 1, 0)
    assert decide(own, head=Head(1, 5), now_s=1.0, witnesses=("ann",))


def test_a_server_that_is_cut_off_works_on_after_a_while():
    own = OwnFeed(own_id=id_of("ann"), now_s=10.0)
    assert not decide(own, head=Head(1, 5), now_s=10.0 + ALONE_S - 0.1, in_session=())
    assert decide(own, head=Head(1, 5), now_s=10.0 + ALONE_S, in_session=())


def test_a_single_server_need_not_ask():
    own = OwnFeed(own_id=id_of("ann"), now_s=0.0)
    assert own.decide(others=(), witnesses=("ann",), in_session=(), head=None, now_s=0.0)


def test_a_server_put_back_gets_its_feed_back_before_it_may_append():
    world = World("ann", "bob", "cid")
    world.introduce()
    ann = world["ann"]
    ann.append(*(b"entry %d" % number for number in range(6)))
    world.run_until(world.agree, at_most_s=5)
    world.run_until(lambda: ann.ledger.may_append, at_most_s=5)
    feed = ann.ledger.held[ann.id]
    feed.entries = feed.entries[:2]
    feed.note = note_of(ann.key, 1, feed.entries)
    ann.ledger.may_append = False
    ann.restart()
    world.run_until(lambda: ann.ledger.may_append, at_most_s=10)
    assert len(ann.ledger.held[ann.id].entries) == 6
    assert world.agree()
    assert not [fork for host in world.hosts.values() for fork in host.forks]


def customer(letter: bytes, top: str) -> dict[str, str]:
    name = f"customer-{letter.decode()}"
    return {"node": new_uuid(letter * 16), "kind": "customer", "parent": top, "name": name}


@pytest.mark.slow
async def test_a_ledger_put_back_is_whole_again_and_nobody_is_called_a_liar(tmp_path):
    charter = charter_of("ann", "bob", "cid")  # cid is down all the time
    root = Author(key=ROOT, mesh_id=MESH, clock=CLOCK)
    author = Author(key=key_of("bob"), mesh_id=MESH, clock=CLOCK)
    top = node_id_of(ROOT.public_key)
    one, two, three = (customer(letter, top) for letter in (b"1", b"2", b"3"))
    async with running(tmp_path, charter, "ann") as (ann, ann_gossip):
        await ann.submit([root.record("tree.create", {"node": top, "kind": "root"})])
        async with running(tmp_path, charter, "bob") as (bob, gossip):
            gossip.learn(ann_gossip.own_fact())
            await until(lambda: bob.state.get("tree", top))
            await bob.submit([author.record("tree.create", one)])
        shutil.copytree(tmp_path / "bob", tmp_path / "old")
        async with running(tmp_path, charter, "bob") as (bob, gossip):
            await bob.submit([author.record("tree.create", two)])
            newest = bob.log(bob.server_id).size
            await until(lambda: ann.state.get("tree", two["node"]))
        shutil.rmtree(tmp_path / "bob")
        (tmp_path / "old").rename(tmp_path / "bob")
        async with contextlib.AsyncExitStack() as stack:
            bob, gossip = await stack.enter_async_context(
                running(tmp_path, charter, "bob", wait=True)
            )
            assert bob.health().state is HealthState.DEGRADED
            assert bob.log(bob.server_id).size < newest
            async with asyncio.timeout(60):
                await bob.submit([author.record("tree.create", three)])
            assert bob.log(bob.server_id).size > newest
            await until(lambda: ann.state.get("tree", three["node"]))
            await until(lambda: bob.state.root() == ann.state.root())
            assert bob.health().state is HealthState.OK
            assert not ann.fold.limits.is_untrusted(bob.server_id)
