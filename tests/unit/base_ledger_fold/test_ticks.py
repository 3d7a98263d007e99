"""The state at a tick: the same on every server, whatever each has learnt since."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.ledger.feed import attest_from_body
from services.base.ledger.ticks import (
    MAX_TAKEN_BACK,
    QUICK_GRACE_MS,
    QUICK_MS,
    QUICK_NEWS_MS,
    StateWord,
    agreed_word,
    decode_word,
    last_tick_ms,
    quick_tick_ms,
    word_at,
)
from services.kernel.errors import WireError
from tests.fakes.thoroughness import examples
from tests.fakes.world import START_MS, World

START_S = START_MS // 1000


def busy_world(seed: int) -> World:
    """Three servers that write and are attested in turns, some of it not attested at last."""
    rng = random.Random(seed)  # noqa: S311 (failures repeat)
    world = World(3)
    for server in world.servers:
        world.attest(server, len(server.entries), START_S)
    for step in range(1, 30):
        server = rng.choice(world.servers)
        world.invite(server, f"{seed} {step}")
        if rng.random() < 0.6:
            world.attest(server, len(server.entries), START_S + step)
    return world


@given(seed=st.integers(0, 2**16), second=st.integers(-1, 31))
@examples(40)
def test_servers_that_know_more_or_less_since_give_the_same_word(seed, second) -> None:
    world = busy_world(seed)
    tick_ms = (START_S + second) * 1000
    whole = world.folded()
    root = whole.state.root()
    word = word_at(whole, tick_ms)
    assert whole.state.root() == root
    # Another server has of each feed what was attested until then, and a little more.
    rng = random.Random(seed)  # noqa: S311 (failures repeat)
    less = world.fold()
    less.publish_charter()
    for server in world.servers:
        needed = 1 + max(
            (
                index
                for index, entry in enumerate(server.entries)
                if entry.record.kind == "feed.attest"
                and attest_from_body(entry.record.body).signatures[0].time_s * 1000 <= tick_ms
            ),
            default=-1,
        )
        world.deliver(less, server, rng.randint(needed, len(server.entries)))
    # The roster comes on the first server's feed: without it the words can't agree.
    if less.charter.number == whole.charter.number:
        assert word_at(less, tick_ms) == word


def test_what_is_provisional_at_the_tick_is_not_in_its_root() -> None:
    world = World(1)
    first = world.servers[0]
    world.attest(first, len(first.entries), START_S)
    before = world.folded()
    world.invite(first, "later")
    after = world.folded()
    assert before.state.root() != after.state.root()
    tick_ms = START_MS + 10_000
    assert word_at(before, tick_ms) == word_at(after, tick_ms)
    world.attest(first, len(first.entries), START_S + 5)
    assert word_at(world.folded(), tick_ms).root != word_at(before, tick_ms).root


def test_a_tick_before_what_can_be_taken_back_has_no_word() -> None:
    world = World(1)
    first = world.servers[0]
    for step in range(20):
        world.invite(first, f"{step}")
        world.attest(first, len(first.entries), START_S + step)
    fold = world.folded(retain_settled=2)
    assert word_at(fold, START_MS + 3_000) is None
    assert word_at(fold, START_MS + 19_000) is not None


def test_ticks_leave_the_news_time_to_arrive() -> None:
    assert last_tick_ms(100_000, 20_000) == 80_000
    assert last_tick_ms(104_999, 20_000) == 80_000
    assert last_tick_ms(105_000, 20_000) == 100_000


class TestQuickTicks:
    """Who joined just now is in a state that the servers sign within seconds."""

    def ticks(self, world: World, until_s: int) -> list[int]:
        """Return the seconds of the quick ticks that are spoken of, as the time goes on."""
        fold, found = world.folded(), []
        for ms in range(0, until_s * 1000, 500):
            tick_ms = quick_tick_ms(fold, START_MS + ms, 20_000)
            if tick_ms is not None:
                found.append((tick_ms - START_MS) // 1000)
        return sorted(set(found))

    def attested_at(self, second: int) -> World:
        world = World(1)
        first = world.servers[0]
        world.attest(first, len(first.entries), START_S - 60)
        world.invite(first, "new")
        world.attest(first, len(first.entries), START_S + second)
        return world

    def test_news_are_told_a_moment_after_they_settled_and_then_no_more(self) -> None:
        assert START_MS % 20_000 == 0
        assert self.ticks(self.attested_at(5), 60) == [6, 8, 10]
        grace = quick_tick_ms(
            self.attested_at(5).folded(), START_MS + 6000 + QUICK_GRACE_MS, 20_000
        )
        assert grace == START_MS + 6000
        early = START_MS + 6000 + QUICK_GRACE_MS - 1
        assert quick_tick_ms(self.attested_at(5).folded(), early, 20_000) is None

    def test_what_comes_to_an_ordinary_tick_is_left_to_that(self) -> None:
        assert self.ticks(self.attested_at(19), 60) == [22, 24]

    def test_an_idle_mesh_says_nothing_more_than_before(self) -> None:
        world = World(1)
        first = world.servers[0]
        world.attest(first, len(first.entries), START_S - 60)
        world.invite(first, "not attested")
        assert self.ticks(world, 60) == []

    def test_one_who_hears_of_an_attest_late_speaks_at_the_same_tick_as_the_others(self) -> None:
        """The ticks follow from the feeds, not from what was said before."""
        world = self.attested_at(5)
        late_ms = START_MS + 10_000 + QUICK_GRACE_MS
        known, late = world.folded(), world.updated(world.folded())
        assert quick_tick_ms(known, late_ms, 20_000) == quick_tick_ms(late, late_ms, 20_000)
        assert QUICK_NEWS_MS >= 2 * QUICK_MS

    def test_where_much_would_be_taken_back_it_waits_for_the_ordinary_tick(self) -> None:
        world = self.attested_at(5)
        first = world.servers[0]
        for number in range(MAX_TAKEN_BACK + 1):
            world.invite(first, f"load {number}")
        assert self.ticks(world, 30) == []


class TestAgreement:
    def word(self, world: World, **changes) -> StateWord:
        fields = {
            "time_ms": 20_000,
            "roster_number": world.charter.number,
            "roster_hash": bytes.fromhex(world.charter.head),
            "feeds_hash": b"f" * 32,
            "root": b"r" * 32,
        }
        return StateWord(**(fields | changes))

    def world(self) -> World:
        world = World(4)
        voters = [server.id for server in world.servers[:3]]
        world.change(world.servers[0], witnesses=voters)
        return world

    def test_more_than_half_of_the_witnesses_make_a_word_good(self) -> None:
        world = self.world()
        ids = [server.id for server in world.servers]
        good, other = self.word(world), self.word(world, root=b"x" * 32)
        assert agreed_word(world.charter, {ids[0]: good, ids[2]: good}) == good
        assert agreed_word(world.charter, {ids[0]: good, ids[1]: other}) is None
        assert agreed_word(world.charter, {ids[0]: good, ids[3]: good}) is None
        assert agreed_word(world.charter, {}) is None

    def test_a_word_under_a_roster_that_the_root_never_signed_is_none(self) -> None:
        world = self.world()
        ids = [server.id for server in world.servers]
        for changes in ({"roster_number": 99}, {"roster_hash": bytes(32)}, {"roster_number": 0}):
            word = self.word(world, **changes)
            assert agreed_word(world.charter, dict.fromkeys(ids, word)) is None

    def test_a_word_survives_its_encoding_and_nothing_else_does(self) -> None:
        world = self.world()
        word = self.word(world)
        data = word.encode()
        assert decode_word(data) == word
        assert len(data) <= 256
        for junk in (b"", data[:-1], data + b"\0", data.replace(b"\x95", b"\x94", 1)):
            with pytest.raises(WireError):
                decode_word(junk)
