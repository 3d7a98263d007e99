"""Whatever order feeds arrive in, the state is one: a model that shuffles arrival."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.signatures import verify
from services.base.ledger.fold import HorizonError
from services.base.ledger.points import settled_points
from services.base.ledger.replay import Replay
from services.kernel.addr import default_ranges
from services.kernel.ids import b64u_encode, node_id_of
from tests.fakes.reference_fold import map_root, reference
from tests.fakes.thoroughness import examples
from tests.fakes.world import START_MS, Held, Server, World, curve_key, key_of

if TYPE_CHECKING:
    from services.base.ledger.state import State

# A night's run: SEIPD_MODEL_EXAMPLES=20000
QUICK = examples(int(os.environ.get("SEIPD_MODEL_EXAMPLES", "60")))

STEPS = st.lists(
    st.tuples(
        st.integers(0, 16),
        st.integers(0, 3),
        st.integers(0, 5),
        st.integers(1, 400),
    ),
    min_size=1,
    max_size=30,
)


def play(world: World, steps) -> None:  # noqa: C901, PLR0912 (a table of what may be tried)
    """Write what a script says; much of it is against the rules on purpose."""
    invites = []
    for action, who, what, later_ms in steps:
        server = world.servers[who % len(world.servers)]
        name = f"host-{what}"
        node = node_id_of(key_of(f"endpoint {name}").public_key)
        server.hlc += later_ms << 16
        if action == 0:
            invites.append(world.invite(server, f"{len(invites)}", uses=1 + what % 2))
        elif action == 1 and invites:
            invite_id, seed = invites[what % len(invites)]
            world.write(server, world.redeem(name, invite_id, seed))
        elif action == 2:
            first = default_ranges().slice_at(4 * (who % len(world.servers)))
            world.write(server, world.assign(server, name, str(first[10 + what])))
        elif action == 3:
            world.write(server, world.signed(server.key, "tree.remove", {"node": node}))
        elif action == 4:
            body = {"node": node, "name": f"renamed-{what}"}
            world.write(server, world.signed(server.key, "tree.rename", body))
        elif action == 5 and len(server.entries) > 1:
            size = 1 + (what * 7) % (len(server.entries))
            world.attest(server, size, START_MS // 1000 + later_ms + what)
        elif action == 6:
            body = {
                "node": f"00000000-0000-4000-8000-00000000010{what}",
                "kind": "customer",
                "parent": world.root_node,
                "name": f"customer-{what % 3}",
            }
            world.write(server, world.signed(server.key, "tree.create", body))
        elif action == 7:
            one, other = (f"00000000-0000-4000-8000-00000000010{n % 6}" for n in (what, what + 1))
            world.write(
                server, world.signed(server.key, "tree.move", {"node": one, "parent": other})
            )
        elif action == 8:
            stranger = key_of("stranger")
            world.write(server, world.signed(stranger, "tree.remove", {"node": node}))
        elif action == 9 and world.servers[0].entries:
            copied = world.servers[0].entries[what % len(world.servers[0].entries)].record
            world.write(server, copied)
        elif action == 10:
            body = {
                "block": f"10.128.0.{4 * what}/30",
                "pool": "private",
                "customer": world.customer,
            }
            world.write(server, world.signed(server.key, "ipam.block", body))
        elif action == 11:
            world.attest(server, max(1, len(server.entries) - what), START_MS // 1000 + later_ms)
        elif action == 12:
            name = b64u_encode(key_of(f"friend {what}").public_key)
            body = {"node": world.customer, "key": name, "capability": ("read", "admin")[what % 2]}
            world.write(server, world.signed(world.root, "tree.grant", body))
        elif action > 12:
            play_roster(world, action - 13, server, what)


def play_roster(world: World, action: int, server: Server, what: int) -> None:
    """Change the roster, by the rules and against them, and go by it, truly and falsely."""
    if action == 0 and len(world.servers) < 5:
        number = len(world.servers)
        new = Server(f"server {number}")
        new.hlc = server.hlc
        world.servers.append(new)
        voters = [one.id for one in world.servers[: 3 if what % 2 else 1]]
        named = set(world.charter.servers()) | {new.id}
        certificate = world.certificate(new, (str(default_ranges().slice_at(4 * number)),))
        world.change(
            server,
            servers=[certificate.value()],
            witnesses=voters if named.issuperset(voters) else voters[:1],
        )
        world.name_roster(new)
    elif action == 1:
        gone = world.servers[1 + what % (len(world.servers) - 1)]
        world.change(server, removed=[world.removal(gone, what % (len(gone.entries) + 1))])
    elif action == 2:
        changes = ({}, {}, {}, {"hash": "ab" * 32}, {"number": 99}, {"number": 1})[what]
        world.name_roster(server, **changes)
    elif action == 3:
        greedy = world.certificate(world.servers[1], ("10.64.0.0/20",))
        world.change(server, servers=[greedy.value()])


def shuffled(world: World, seed: int, **options):
    """Deliver in another order; where that asks to begin anew, begin anew."""
    fold = world.fold(**options)
    fold.publish_charter()
    rng = random.Random(seed)  # noqa: S311 (repeatable)
    try:
        deliver_shuffled(world, fold, rng)
    except HorizonError:
        return world.folded()
    return fold


def deliver_shuffled(world: World, fold, rng) -> None:
    while pending := [
        server
        for server in world.servers
        if (fold.feeds[server.id].size if server.id in fold.feeds else 0) < len(server.entries)
    ]:
        world.deliver(fold, rng.choice(pending), rng.randint(1, 5))


def check_invariants(state: State) -> None:
    """No address is held twice, and what points to a node is pointed back to."""
    nodes = {key: value for _, key, value in state.scan("tree")}
    held = {key: value for _, key, value in state.scan("ipam")}
    assert {node["address"]: key for key, node in nodes.items() if "address" in node} == held
    addresses = [node["address"] for node in nodes.values() if "address" in node]
    assert len(addresses) == len(set(addresses))
    for _, key, node_id in state.scan("wg"):
        assert nodes[node_id]["wireguard_key"] == key
    names = {
        f"{node['parent']}/{node['name']}": key for key, node in nodes.items() if node["parent"]
    }
    assert names == {key: value for _, key, value in state.scan("name")}
    for key in nodes:
        path = [key]
        while (parent := nodes[path[-1]]["parent"]) is not None:
            assert parent not in path, "a cycle"
            path.append(parent)


@QUICK
@given(steps=STEPS, seeds=st.lists(st.integers(0, 2**32), min_size=2, max_size=3))
def test_any_order_of_arrival_gives_one_state(steps, seeds) -> None:
    world = World(3)
    play(world, steps)
    whole = world.folded()
    check_invariants(whole.state)
    for seed in seeds:
        fold = shuffled(world, seed)
        assert fold.state.root() == whole.state.root()
        assert b"".join(fold.state.packed()) == b"".join(whole.state.packed())


@QUICK
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_the_incremental_fold_is_the_naive_one(steps, seed) -> None:
    """Sorting everything once and applying it from empty gives the same as living through it."""
    world = World(2)
    play(world, steps)
    fold = shuffled(world, seed)
    state, effective = reference(world)
    assert {(view, key): value for view, key, value in _objects(fold.state)} == state.objects
    assert fold.state.root() == map_root(state.objects)
    assert {(one.author, one.index) for one in fold._items if one.refusal is None} == effective
    assert not any(one.refusal == "internal" for one in fold._items)


@QUICK
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_taking_provisional_entries_back_and_resuming_gives_the_same(steps, seed) -> None:
    world = World(2)
    play(world, steps)
    fold = shuffled(world, seed)
    before = fold.state.root()
    points, horizon_ms = settled_points(fold)
    provisional = fold.rewind()
    settled_body, count = b"".join(fold.state.packed()), fold.state.count
    fold.forward(provisional)
    assert fold.state.root() == before
    resumed = world.fold()
    for record in fold.charter.records[1:]:
        resumed.charter.offer(record)
    resumed.state.load([settled_body], count)
    resumed.resume(points, horizon_ms)
    resumed.publish_charter()
    for server in world.servers:
        if server.id in points or server.entries:
            world.deliver(resumed, server)
    assert resumed.state.root() == before


@QUICK
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_a_short_memory_asks_to_begin_anew_and_never_differs(steps, seed) -> None:
    world = World(2)
    play(world, steps)
    try:
        fold = shuffled(world, seed, retain_settled=1)
    except HorizonError:
        fold = world.folded()
    assert fold.state.root() == world.folded().state.root()


def test_a_provisional_entry_that_loses_its_ground_is_voided_and_told() -> None:
    """Both sides of a cut made the customer; the one that settles first stays."""
    world = World(2)
    first, second = world.servers
    world.attest(first, len(first.entries), START_MS // 1000)
    bodies = [
        {
            "node": f"00000000-0000-4000-8000-00000000020{number}",
            "kind": "customer",
            "parent": world.root_node,
            "name": "acme",
        }
        for number in range(2)
    ]
    world.write(first, world.signed(first.key, "tree.create", bodies[0]))
    fold = world.folded()
    world.write(second, world.signed(second.key, "tree.create", bodies[1]), later_ms=60_000)
    world.attest(second, len(second.entries), START_MS // 1000 + 1)
    world.deliver(fold, second)
    world.attest(first, len(first.entries), START_MS // 1000 + 2)
    world.deliver(fold, first)
    assert [item.record.body["node"] for item in fold.voided] == [bodies[0]["node"]]
    assert fold.state.get("name", f"{world.root_node}/acme") == bodies[1]["node"]


def test_a_forged_attest_settles_nothing() -> None:
    world = World(2)
    server = world.servers[1]
    world.invite(server, "x")
    world.attest(server, len(server.entries), START_MS // 1000, forged=True)
    fold = world.folded()
    assert fold.feeds[server.id].attested == 0


def test_a_record_with_a_wrong_signature_has_no_effect() -> None:
    world = World(1)
    server = world.servers[0]
    good = world.signed(server.key, "tree.rename", {"node": world.customer, "name": "other"})
    forged = good.__class__(**{**_fields(good), "body": {"node": world.customer, "name": "evil"}})
    world.write(server, forged)
    fold = world.folded()
    assert fold.state.get("tree", world.customer)["name"] == "default"


def test_tre_07_an_id_counts_once_on_whichever_feed_it_comes_first() -> None:
    world = World(2)
    first, second = world.servers
    record = world.signed(first.key, "tree.rename", {"node": world.customer, "name": "once"})
    world.write(first, record)
    world.write(second, record, later_ms=1000)
    other = world.signed(
        first.key, "tree.rename", {"node": world.customer, "name": "twice"}, record_id=record.id
    )
    world.write(first, other, later_ms=2000)
    fold = world.folded()
    assert fold.state.get("tree", world.customer)["name"] == "once"
    assert [item.refusal for item in fold.items_of([record.id])].count(None) == 1


def test_a_feed_waits_for_the_roster_that_it_names() -> None:
    world = World(1)
    joining = Server("server 1")
    world.servers.append(joining)
    joining.hlc = world.servers[0].hlc
    change = world.add_server(joining, ("10.64.64.0/20",))
    world.name_roster(joining)
    world.invite(joining, "late")
    fold = world.fold()
    fold.publish_charter()
    world.deliver(fold, world.servers[0])
    world.deliver(fold, joining)
    assert list(fold.state.scan("invite")) == []
    world.write(world.servers[0], change)
    world.deliver(fold, world.servers[0])
    assert len(list(fold.state.scan("invite"))) == 1


def test_a_server_gives_only_from_its_own_slices() -> None:
    world = World(2)
    first, second = world.servers
    invite_id, seed = world.invite(second, "e")
    world.write(second, world.redeem("e", invite_id, seed))
    world.write(second, world.assign(second, "e", "10.64.0.10"))
    fold = world.folded()
    assert list(fold.state.scan("ipam")) == []
    world.write(second, world.assign(second, "e", "10.64.64.10"))
    world.deliver(fold, second)
    assert [key for _, key, _ in fold.state.scan("ipam")] == ["10.64.64.10"]
    assert fold.state.get("wg", curve_key("e")) is not None
    assert b64u_encode(first.key.public_key) != b64u_encode(second.key.public_key)


def _objects(state: State):
    return (json.loads(payload) for bucket in state.leaves() for _, payload in bucket)


def _fields(record):
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def standing(fold) -> dict:
    return {
        name: (
            one.size,
            one.processed,
            one.attested,
            one.last_hlc,
            one.settled_hlc,
            one.settled_ms,
            one.roster_number,
            [item.index for item in one.unsettled],
        )
        for name, one in fold.feeds.items()
        if one.size
    }


@QUICK
@given(steps=STEPS, data=st.data())
def test_whole_logs_fold_to_the_same_as_entries_that_come_one_by_one(steps, data) -> None:
    world = World(2)
    play(world, steps)
    sizes = [data.draw(st.integers(0, len(server.entries))) for server in world.servers]
    logs = {
        server.id: Held(server, size) for server, size in zip(world.servers, sizes, strict=True)
    }
    stepwise = world.fold()
    stepwise.publish_charter()
    try:
        for server, size in zip(world.servers, sizes, strict=True):
            world.deliver(stepwise, server, size)
    except HorizonError:
        return
    fold = world.fold()
    fold.publish_charter()
    own = world.servers[0].id
    Replay(fold, own_id=own, verify=verify).run(lambda: logs)
    assert fold.state.root() == stepwise.state.root()
    assert standing(fold) == standing(stepwise)
    assert world.updated(fold).state.root() == world.folded().state.root()


def test_feeds_that_interleave_fold_whole_though_little_is_remembered() -> None:
    """One after the other they would reach back before what can be taken back."""
    world = World(2)
    for number in range(40):
        server = world.servers[number % 2]
        world.invite(server, f"{number}")
        world.attest(server, len(server.entries), START_MS // 1000 + number)
    logs = {server.id: Held(server, len(server.entries)) for server in world.servers}
    stepwise = world.fold(retain_settled=2)
    stepwise.publish_charter()
    world.deliver(stepwise, world.servers[0])
    with pytest.raises(HorizonError):
        world.deliver(stepwise, world.servers[1])
    fold = world.fold(retain_settled=2)
    fold.publish_charter()
    Replay(fold, own_id=world.servers[0].id, verify=verify).run(lambda: logs)
    assert fold.state.root() == world.folded().state.root()
