"""The roster: one author, numbered steps, and what happens to feeds around them."""

from __future__ import annotations

import io
import itertools

import pytest

from services.base.crypto.signatures import verify
from services.base.ledger.points import settled_points
from services.base.ledger.roster import Charter
from services.base.ledger.snapshot import Snapshot, decode_snapshot, encode_snapshot
from services.kernel.addr import default_ranges
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import b64u_encode
from tests.fakes.world import START_MS, Server, World, key_of

START_S = START_MS // 1000


def slice_text(number: int) -> str:
    return str(default_ranges().slice_at(number))


def newcomer(world: World, number: int, slices: tuple[str, ...]):
    server = Server(f"server {number}")
    server.hlc = world.servers[0].hlc
    return server, world.certificate(server, slices).value()


def draft(world: World, **changes):
    """Sign a change that follows the newest one, without offering it."""
    body = {
        "number": world.charter.number + 1,
        "prev": world.charter.head,
        "servers": [],
        "removed": [],
        "witnesses": [world.servers[0].id],
        **changes,
    }
    return world.signed(world.root, "roster.change", body)


def code_of(world: World, **changes) -> str:
    with pytest.raises((RejectedError, InputError)) as raised:
        world.charter.offer(draft(world, **changes))
    return raised.value.code


class TestRules:
    def test_changes_may_come_in_any_order(self) -> None:
        world = World(4)
        changes = [one.record for one in world.servers[0].entries[:4]]
        for order in itertools.permutations(changes):
            charter = Charter(world.genesis)
            effective = [change.number for record in order for change in charter.offer(record)]
            assert effective == [1, 2, 3, 4]
            assert charter.head == world.charter.head

    def test_only_the_root_changes_it(self) -> None:
        world = World(1)
        body = draft(world).body
        with pytest.raises(RejectedError) as raised:
            world.charter.offer(world.signed(world.servers[0].key, "roster.change", body))
        assert raised.value.code == "rejected_unauthorised"

    def test_a_number_is_taken_once_and_saying_it_again_is_nothing(self) -> None:
        world = World(1)
        record = draft(world)
        assert [change.number for change in world.charter.offer(record)] == [2]
        assert world.charter.offer(record) == []
        assert code_of(world, number=2, prev="ab" * 32) == "rejected_stale"

    def test_slices_and_backbones_never_overlap_also_within_one_change(self) -> None:
        world = World(1)
        _, one = newcomer(world, 1, (slice_text(8),))
        _, other = newcomer(world, 2, (slice_text(8),))
        assert code_of(world, servers=[one, {**other, "backbone": "172.16.0.99"}]) == (
            "rejected_overlap"
        )
        _, greedy = newcomer(world, 1, (slice_text(0),))
        assert code_of(world, servers=[greedy]) == "rejected_overlap"
        taken = world.charter.server(world.servers[0].id).backbone
        assert code_of(world, servers=[{**one, "backbone": taken}]) == "rejected_overlap"
        other = {**other, "backbone": one["backbone"], "slices": [slice_text(9)]}
        assert code_of(world, servers=[one, other]) == "rejected_overlap"
        assert world.charter.number == 1

    @pytest.mark.parametrize("address", ["172.16.0.0", "172.16.0.9", "172.16.3.255", "10.64.0.12"])
    def test_a_backbone_address_that_no_server_may_have(self, address) -> None:
        world = World(1)
        _, one = newcomer(world, 1, (slice_text(8),))
        assert code_of(world, servers=[{**one, "backbone": address}]) == "rejected_scope"

    def test_a_change_names_a_server_once(self) -> None:
        world = World(1)
        server, one = newcomer(world, 1, (slice_text(8),))
        assert code_of(world, servers=[one, one]) == "rejected_conflict"
        gone = world.removal(server, 0)
        assert code_of(world, servers=[one], removed=[gone]) == "rejected_conflict"
        assert code_of(world, removed=[gone, gone]) == "rejected_conflict"

    @pytest.mark.parametrize(
        "changes",
        [
            {"slices": []},
            {"slices": ["10.64.128.0/21"]},
            {"slices": ["10.64.128.0/20", "10.64.128.0/20"]},
            {"slices": ["11.0.0.0/20"]},
            {"backbone": "172.16.0.010"},
            {"wireguard_key": b64u_encode(bytes(32))},
            {"epoch": 0},
            {"region": "EU"},
            {"more": 1},
        ],
    )
    def test_a_certificate_that_is_none(self, changes) -> None:
        world = World(1)
        _, one = newcomer(world, 1, (slice_text(8),))
        assert code_of(world, servers=[{**one, **changes}])
        assert world.charter.number == 1

    @pytest.mark.parametrize("count", [0, 2, 11])
    def test_witnesses_are_odd_and_nine_at_most(self, count) -> None:
        world = World(1)
        assert code_of(world, witnesses=[world.servers[0].id] * count) == "bad_field"

    def test_a_witness_is_a_server_that_stays(self) -> None:
        world = World(2)
        stranger = Server("stranger").id
        assert code_of(world, witnesses=[stranger]) == "rejected_unauthorised"
        gone = world.servers[1]
        removed = [world.removal(gone)]
        assert code_of(world, witnesses=[gone.id], removed=removed) == "rejected_unauthorised"

    def test_one_against_the_rules_hides_no_good_one_of_its_number(self) -> None:
        world = World(1)
        first = draft(world)
        head = Charter(world.genesis)
        head.offer(world.servers[0].entries[0].record)
        head.offer(first)
        _, one = newcomer(world, 1, (slice_text(8),))
        _, greedy = newcomer(world, 2, (slice_text(0),))
        follows = {"number": 3, "prev": head.head}
        good = draft(world, servers=[one], **follows)
        bad = draft(world, servers=[greedy], **follows)
        for order in itertools.permutations((first, good, bad)):
            charter = Charter(world.genesis)
            charter.offer(world.servers[0].entries[0].record)
            for record in order:
                try:
                    charter.offer(record)
                except RejectedError:
                    assert record is bad
            assert charter.number == 3
            assert charter.records[-1] == good


class TestFeeds:
    def test_a_waiting_change_that_breaks_the_rules_stops_nothing(self) -> None:
        """The change before it takes effect, and the feed that waited goes on."""
        world = World(1)
        first = world.servers[0]
        joining, certificate = newcomer(world, 1, (slice_text(8),))
        change = draft(world, servers=[certificate])
        world.charter.offer(change)
        _, greedy = newcomer(world, 2, (slice_text(0),))
        world.servers.append(joining)
        world.write(joining, draft(world, servers=[greedy]))
        world.name_roster(joining)
        world.invite(joining, "late")
        fold = world.folded()
        assert list(fold.state.scan("invite")) == []
        world.write(first, change)
        world.deliver(fold, first)
        assert len(list(fold.state.scan("invite"))) == 1
        assert fold.state.get("roster", joining.id) == certificate
        assert fold.state.root() == world.folded().state.root()

    def test_a_false_word_on_a_roster_counts_for_nobody(self) -> None:
        """It makes no difference whether the roster was known when it came."""
        world = World(2)
        first, second = world.servers
        body = {"number": 3, "hash": "ab" * 32}
        world.write(second, world.signed(second.key, "feed.roster", body))
        world.invite(second, "after")
        early = world.folded()
        _, certificate = newcomer(world, 2, (slice_text(8),))
        world.change(first, servers=[certificate])
        world.deliver(early, first)
        late = world.folded()
        assert early.feeds[second.id].roster_number == 2
        assert late.feeds[second.id].roster_number == 2
        assert early.state.root() == late.state.root()
        assert len(list(late.state.scan("invite"))) == 1

    def test_a_server_that_came_and_went_leaves_the_state_however_it_was_told(self) -> None:
        world = World(1)
        first = world.servers[0]
        joining, certificate = newcomer(world, 1, (slice_text(8),))
        world.change(first, servers=[certificate])
        world.change(first, removed=[world.removal(joining, 0)])
        step_by_step = world.fold()
        step_by_step.publish_charter()
        while step_by_step.feeds.get(first.id) is None or (
            step_by_step.feeds[first.id].size < len(first.entries)
        ):
            world.deliver(step_by_step, first, 1)
        assert step_by_step.state.get("roster", joining.id) is None
        assert step_by_step.state.root() == world.folded().state.root()

    def test_of_a_removed_server_counts_what_the_root_says(self) -> None:
        world = World(2)
        first, second = world.servers
        world.attest(first, len(first.entries), START_S)
        kept, _ = world.invite(second, "kept")
        end = len(second.entries)
        lost, _ = world.invite(second, "lost")
        world.attest(second, len(second.entries), START_S + 1)
        later, _ = world.invite(second, "later")
        fold = world.folded()
        assert {key for _, key, _ in fold.state.scan("invite")} == {kept, lost, later}
        world.change(first, removed=[world.removal(second, end)])
        fold = world.updated(fold)
        assert {key for _, key, _ in fold.state.scan("invite")} == {kept}
        world.invite(second, "last")
        fold = world.updated(fold)
        assert {key for _, key, _ in fold.state.scan("invite")} == {kept}
        assert fold.state.root() == world.folded().state.root()

    def test_of_two_revocations_the_smaller_size_wins(self) -> None:
        world = World(2)
        first, second = world.servers
        one, _ = world.invite(second, "one")
        world.invite(second, "two")
        fold = world.folded()
        sizes = [len(second.entries) - 1, len(second.entries) - 2, len(second.entries)]
        for size, left in zip(sizes, [{one}, set(), set()], strict=True):
            world.change(first, removed=[world.removal(second, size)])
            world.deliver(fold, first)
            assert {key for _, key, _ in fold.state.scan("invite")} == left
            assert fold.state.root() == world.folded().state.root()

    def test_a_removed_server_never_comes_back_and_its_slices_go_to_an_heir(self) -> None:
        world = World(3)
        _, second, third = world.servers
        mine = world.charter.server(second.id).slices
        heir = world.charter.server(third.id)
        world.change(world.servers[0], removed=[world.removal(second)])
        back = world.certificate(second, mine)
        assert code_of(world, servers=[back.value()]) == "revoked"
        assert mine[0] not in set(world.charter.free_slices())
        more = {**heir.value(), "slices": [*heir.slices, *mine]}
        world.change(world.servers[0], servers=[more])
        assert world.charter.slice_holder(mine[0]) == third.id

    def test_a_record_is_judged_by_the_roster_that_its_feed_had_named(self) -> None:
        """A slice that was given later makes no address of before right."""
        world = World(2)
        first, second = world.servers
        invite_id, seed = world.invite(second, "e")
        world.write(second, world.redeem("e", invite_id, seed))
        world.write(second, world.assign(second, "e", "10.64.128.10"))
        certificate = world.charter.server(second.id).value()
        certificate["slices"] = [*certificate["slices"], "10.64.128.0/20"]
        world.change(first, servers=[certificate])
        fold = world.folded()
        assert list(fold.state.scan("ipam")) == []
        world.name_roster(second)
        world.write(second, world.assign(second, "e", "10.64.128.10"))
        world.deliver(fold, second)
        assert [key for _, key, _ in fold.state.scan("ipam")] == ["10.64.128.10"]

    def test_a_witness_s_clock_that_steps_back_turns_no_feed_around(self) -> None:
        world = World(1)
        server = world.servers[0]
        invite_id, seed = world.invite(server, "one")
        world.attest(server, len(server.entries), START_S + 500)
        answered = world.redeem("answered", invite_id, seed)
        world.write(server, answered)
        world.attest(server, len(server.entries), START_S + 900)
        refused = world.redeem("refused", invite_id, seed)
        world.write(server, refused)
        world.attest(server, len(server.entries), START_S + 600)
        fold = world.folded()
        assert [item.refusal for item in fold.items_of([answered.id])] == [None]
        assert [item.refusal for item in fold.items_of([refused.id])] == ["token_used"]
        assert list(fold.voided) == []

    def test_a_majority_of_witnesses_settles_at_the_median_of_their_times(self) -> None:
        world = World(3)
        first = world.servers[0]
        world.change(first, witnesses=[one.id for one in world.servers])
        world.name_roster(first)
        world.attest(first, len(first.entries), START_S)
        assert world.folded().feeds[first.id].settled_ms == (START_S + 7) * 1000

    def test_one_of_three_witnesses_settles_nothing(self) -> None:
        world = World(3)
        first = world.servers[0]
        world.attest(first, len(first.entries), START_S)
        attest = first.entries.pop().record
        world.change(first, witnesses=[one.id for one in world.servers])
        world.name_roster(first)
        world.write(first, attest)
        assert world.folded().feeds[first.id].attested == 0

    def test_tre_12_a_record_for_another_module_has_no_effect(self) -> None:
        world = World(1)
        server = world.servers[0]
        record = world.signed(
            server.key,
            "tree.rename",
            {"node": world.customer, "name": "other"},
            module=f"domain:{world.customer}",
        )
        world.write(server, record)
        assert world.folded().items_of([record.id])[0].refusal == "rejected_scope"

    def test_what_was_taken_back_by_the_writer_was_never_there(self) -> None:
        world = World(1)
        server = world.servers[0]
        fold = world.folded()
        before = fold.state.root()
        for name in ("one", "two"):
            world.invite(server, name)
        world.deliver(fold, server)
        assert fold.state.root() != before
        fold.forget_last(2)
        del server.entries[-2:]
        assert fold.state.root() == before
        world.invite(server, "three")
        world.deliver(fold, server)
        assert fold.state.root() == world.folded().state.root()


def test_a_state_file_carries_everything_that_the_fold_goes_on_from() -> None:
    world = World(2)
    first, second = world.servers
    world.attest(first, len(first.entries), START_S + 5)
    world.invite(second, "x")
    world.attest(second, len(second.entries), START_S + 9)
    fold = world.folded()
    points, horizon_ms = settled_points(fold)
    snapshot = Snapshot(
        state=fold.state,
        charter_records=tuple(fold.charter.records),
        points=points,
        horizon_ms=horizon_ms,
    )
    key = key_of("server 0")
    data = encode_snapshot(snapshot, mesh_id=world.mesh_id, sign=key.sign)
    read = decode_snapshot(
        io.BytesIO(data), mesh_id=world.mesh_id, key=key.public_key, verify=verify
    )
    assert read.points == points
    assert points[second.id].settled_ms == (START_S + 9) * 1000
    assert (read.horizon_ms, read.charter_records) == (horizon_ms, snapshot.charter_records)
    assert read.state.root() == fold.state.root()
