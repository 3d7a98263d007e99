"""The root key chain in the roster: what follows what, whatever order it comes in."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.ledger.rootchain import ROTATE_KIND, SIGNED_FOR_MS
from services.base.ledger.roster import Charter
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import b64u_encode
from tests.fakes.reference_fold import map_root, reference
from tests.fakes.rootlinks import DAY_MS, MINUTE_MS, link_after, rotate, rotation
from tests.fakes.thoroughness import examples
from tests.fakes.world import START_MS, Server, World, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.records import Record


def change_of(world: World, **changes: Any) -> Record:
    body = {
        "number": world.charter.number + 1,
        "prev": world.charter.head,
        "servers": [],
        "removed": [],
        "witnesses": [world.servers[0].id],
        **changes,
    }
    return world.signed(world.root, "roster.change", body)


def offered(world: World, records: Sequence[Record]) -> tuple[Charter, list[str]]:
    """Offer records to a charter that knows the genesis alone; return the codes of refusals."""
    charter, codes = Charter(world.genesis), []
    for record in records:
        try:
            charter.offer(record)
        except (RejectedError, InputError) as error:
            codes.append(error.code)
    return charter, codes


def code_of(charter: Charter, record: Record) -> str:
    with pytest.raises((RejectedError, InputError)) as raised:
        charter.offer(record)
    return raised.value.code


def closing(world: World) -> Record:
    """Close the window before the newest key, signed when it had ended."""
    newest = world.charter.chain.newest
    draft = change_of(world, closed=newest.generation - 1)
    before = world.charter.chain.generations[newest.generation - 2]
    late = dataclasses.replace(draft, not_after=(before.closes_ms or 0) + SIGNED_FOR_MS)
    signature = world.root.sign(late.signed_bytes(world.mesh_id))
    return dataclasses.replace(late, actor_sig=signature)


class TestOrder:
    def test_changes_of_three_generations_in_any_order_end_alike(self) -> None:
        world = World(1)
        first = list(world.charter.records[1:])
        rotate(world, "root 2")
        world.charter.offer(change_of(world))
        rotate(world, "root 3")
        world.charter.offer(change_of(world))
        records = world.charter.records[len(first) + 1 :]
        for order in itertools.permutations(records):
            charter, _ = offered(world, [*first, *order])
            assert charter.head == world.charter.head
            assert charter.chain.newest.public_key == key_of("root 3").public_key
            assert charter.root_keys == {key_of("root 3").public_key}

    @examples(60)
    @given(data=st.data())
    def test_rkc_01_a_fork_freezes_the_chain_in_any_order(self, data: st.DataObject) -> None:
        world = World(1)
        before = list(world.charter.records[1:])
        parent = world.root
        rival = rotation(world, world.charter, parent, key_of("thief"))
        link = rotate(world, "root 2")
        follower = change_of(world)
        world.charter.offer(follower)
        order = data.draw(st.permutations([*before, link, rival, follower]))
        charter, _ = offered(world, order)
        assert charter.fork is not None
        assert charter.fork.generation == 1
        assert {one.actor for one in charter.fork.records} == {link.actor, rival.actor}
        later = change_of(world)
        world.charter.offer(later)
        number = charter.number
        with contextlib.suppress(RejectedError):
            assert charter.offer(later) == []
        assert charter.number == number

    def test_rkc_01_the_same_link_twice_is_no_fork(self) -> None:
        world = World(1)
        link = rotate(world, "root 2")
        charter, _ = offered(world, [*world.charter.records[1:], link])
        assert charter.fork is None

    def test_rkc_01_a_key_stolen_after_the_window_forks_nothing(self) -> None:
        world = World(1)
        parent, charter = world.root, world.charter
        late = rotation(world, charter, parent, key_of("thief"))
        rotate(world, "root 2")
        charter.offer(closing(world))
        assert code_of(charter, late) == "root_retired"
        assert charter.fork is None


class TestRules:
    @pytest.mark.parametrize("generation", [1, 3, 4, 1 << 31, (1 << 53) - 1])
    def test_rkc_03_a_generation_is_skipped_or_comes_again(self, generation: int) -> None:
        world = World(1)
        record = rotation(world, world.charter, world.root, key_of("root 2"), generation=generation)
        code = code_of(world.charter, record)
        assert code == ("root_skipped" if 2 <= generation < 1 << 31 else "bad_field")
        assert world.charter.chain.newest.generation == 1

    def test_a_link_without_the_endorsement_of_the_key_before_is_refused(self) -> None:
        world = World(1)
        record = rotation(world, world.charter, key_of("stranger"), key_of("root 2"))
        assert code_of(world.charter, record) == "root_unendorsed"

    def test_an_endorsement_for_another_key_is_refused(self) -> None:
        world = World(1)
        mine = link_after(world, world.charter, key_of("root 2"))
        other = dataclasses.replace(mine, public_key=key_of("thief").public_key)
        stolen = dataclasses.replace(other, endorsement=world.root.sign(mine.claim(world.mesh_id)))
        record = world.signed(key_of("thief"), ROTATE_KIND, stolen.value())
        assert code_of(world.charter, record) == "root_unendorsed"

    def test_a_key_that_nobody_shows_to_have_is_refused(self) -> None:
        world = World(1)
        link = link_after(world, world.charter, key_of("root 2"))
        signed = dataclasses.replace(link, endorsement=world.root.sign(link.claim(world.mesh_id)))
        record = world.signed(world.root, ROTATE_KIND, signed.value())
        assert code_of(world.charter, record) == "bad_field"

    def test_an_old_key_does_not_come_back(self) -> None:
        world = World(1)
        first = world.root
        rotate(world, "root 2")
        record = rotation(world, world.charter, world.root, first)
        assert code_of(world.charter, record) == "root_repeated"

    @pytest.mark.parametrize(
        "times",
        [
            {"closes_ms": START_MS - 1},
            {"expires_ms": START_MS},
            {"activated_ms": START_MS - 1},
            {"expires_ms": START_MS + 500 * DAY_MS},
        ],
    )
    def test_times_out_of_order_are_refused(self, times: dict[str, int]) -> None:
        world = World(1)
        record = rotation(world, world.charter, world.root, key_of("root 2"), **times)
        assert code_of(world.charter, record) == "root_window"

    def test_rkc_05_the_key_before_changes_the_roster_no_more(self) -> None:
        world = World(1)
        old = world.root
        rotate(world, "root 2")
        late = Server("late")
        world.root, new = old, world.root
        record = change_of(world, servers=[world.certificate(late, ("10.64.64.0/20",)).value()])
        assert code_of(world.charter, record) == "root_retired"
        assert world.charter.server(late.id) is None
        world.root = new
        world.charter.offer(change_of(world))

    def test_rkc_05_an_expired_key_names_no_server_but_hands_over(self) -> None:
        world = World(1)
        draft = change_of(world)
        expires_ms = world.charter.chain.newest.expires_ms
        late = dataclasses.replace(draft, not_after=expires_ms + SIGNED_FOR_MS + 1)
        late = dataclasses.replace(
            late, actor_sig=world.root.sign(late.signed_bytes(world.mesh_id))
        )
        assert code_of(world.charter, late) == "root_expired"
        times = {"activated_ms": expires_ms + 1, "closes_ms": expires_ms + 2}
        rotate(world, "root 2", **times)
        assert world.charter.chain.newest.generation == 2

    def test_a_window_is_closed_by_the_new_key_once_it_is_over(self) -> None:
        world = World(1)
        rotate(world, "root 2")
        early = change_of(world, closed=1)
        early = dataclasses.replace(early, not_after=START_MS + SIGNED_FOR_MS)
        early = dataclasses.replace(
            early, actor_sig=world.root.sign(early.signed_bytes(world.mesh_id))
        )
        assert code_of(world.charter, early) == "root_window"
        world.charter.offer(closing(world))
        assert world.charter.chain.generations[0].is_closed

    def test_strangers_push_nothing_out_that_waits(self) -> None:
        world = World(1)
        rotate(world, "root 2")
        world.charter.offer(change_of(world))
        *before, link, follower = world.charter.records[1:]
        charter, _ = offered(world, before)
        stranger = key_of("stranger")
        for number in range(2000):
            junk = world.signed(stranger, "roster.change", {**follower.body, "number": 9 + number})
            assert code_of(charter, junk) == "rejected_unauthorised"
        charter.offer(link)
        charter.offer(follower)
        assert charter.head == world.charter.head


class TestRecovery:
    def recovered(self, world: World, place: Charter, **changes: Any) -> Record:
        return rotation(
            world, place, key_of("recovery"), key_of("recovered"), endorser="recovery", **changes
        )

    @examples(60)
    @given(data=st.data())
    def test_a_recovery_beats_the_root_in_any_order(self, data: st.DataObject) -> None:
        world = World(1)
        rotate(world, "root 2", recovery_key=key_of("recovery").public_key)
        trusted = list(world.charter.records[1:])
        place, _ = offered(world, trusted)
        by_recovery = self.recovered(world, place)
        first = rotate(world, "thief")
        second = rotation(world, place, key_of("root 2"), key_of("other thief"))
        follower = change_of(world)
        world.charter.offer(follower)
        order = data.draw(st.permutations([by_recovery, first, second, follower]))
        charter, _ = offered(world, [*trusted, *order])
        assert charter.fork is None
        assert charter.chain.newest.public_key == key_of("recovered").public_key
        assert charter.number == place.number + 1
        assert [one.id for one in charter.records[1:]] == [
            *(one.id for one in trusted),
            by_recovery.id,
        ]

    def test_without_a_recovery_key_in_the_chain_nobody_recovers(self) -> None:
        world = World(1)
        assert code_of(world.charter, self.recovered(world, world.charter)) == "root_unendorsed"

    def test_two_recoveries_of_one_key_are_a_fork(self) -> None:
        world = World(1)
        rotate(world, "root 2", recovery_key=key_of("recovery").public_key)
        place, _ = offered(world, world.charter.records[1:])
        world.charter.offer(self.recovered(world, place))
        other = rotation(world, place, key_of("recovery"), key_of("another"), endorser="recovery")
        assert code_of(world.charter, other) == "root_fork"


class TestFold:
    def customer_by(self, world: World, key: Any, number: int) -> Record:
        body = {
            "node": f"00000000-0000-4000-8000-0000000000{number:02d}",
            "kind": "customer",
            "parent": world.root_node,
            "name": f"customer-{number}",
        }
        return world.signed(key, "tree.create", body)

    def test_rkc_05_the_window_decides_about_what_the_key_before_wanted(self) -> None:
        world = World(1)
        server, old = world.servers[0], world.root
        world.write(server, rotate(world, "root 2"))
        world.name_roster(server)
        world.write(server, self.customer_by(world, old, 11))
        world.write(server, self.customer_by(world, old, 12), later_ms=11 * MINUTE_MS)
        world.write(server, self.customer_by(world, world.root, 13))
        fold = world.updated(world.fold())
        assert fold.state.get("name", f"{world.root_node}/customer-11") is not None
        assert fold.state.get("name", f"{world.root_node}/customer-12") is None
        assert fold.state.get("name", f"{world.root_node}/customer-13") is not None
        assert fold.state.get("root", "2")["public_key"] == b64u_encode(world.root.public_key)

    @examples(40)
    @given(data=st.data())
    def test_servers_that_hear_in_any_order_agree(self, data: st.DataObject) -> None:
        world = World(3)
        one, two, three = world.servers
        old = world.root
        world.write(one, self.customer_by(world, old, 21))
        link = rotate(world, "root 2")
        world.write(one, link)
        world.name_roster(one)
        world.write(
            two, self.customer_by(world, old, 22), later_ms=data.draw(st.integers(1, 10**6))
        )
        world.write(three, self.customer_by(world, world.root, 23))
        world.name_roster(three)
        world.write(three, self.customer_by(world, world.root, 24))
        for server in world.servers:
            if data.draw(st.booleans()):
                size = data.draw(st.integers(1, len(server.entries)))
                world.attest(server, size, START_MS // 1000 + data.draw(st.integers(0, 1200)))
        fold = world.fold()
        fold.publish_charter()
        for server in data.draw(st.permutations([*world.servers, *world.servers])):
            world.deliver(fold, server, data.draw(st.integers(1, 9)))
        fold = world.updated(fold)
        wanted, _ = reference(world)
        assert fold.state.root() == map_root(wanted.objects)
        assert world.folded().state.root() == fold.state.root()
