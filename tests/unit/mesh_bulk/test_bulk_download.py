"""Which tiles are asked for, of whom, and what a lying or failing source changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.ledger.fsck import verify_log
from services.base.ledger.tiles import TileRef
from services.mesh.bulk.download import (
    MAX_CHUNK_BYTES,
    MAX_WINDOW_BYTES,
    SLOW_S,
    ForkedError,
)
from services.mesh.bulk.sources import MAX_IN_FLIGHT, MAX_SOURCES, Failure
from tests.fakes.thoroughness import examples
from tests.unit.mesh_bulk.bulk_kit import ORIGIN, VERIFIER, Feed, World, begin, open_log

BIG = Feed(70_000)
FEED = Feed(3000)
SIZES = (1, 2, 255, 256, 257, 511, 512, 513, 2999, 3000)


@pytest.fixture
def log(tmp_path):
    log = open_log(tmp_path / "log")
    yield log
    log.close()


def hold(log, feed, count):
    if count:
        log.append(feed.entries[:count], feed.checkpoint(count))


@pytest.mark.parametrize(
    ("have", "size"),
    [(have, size) for have in (0, 1, 255, 256, 257, 600) for size in SIZES if have < size],
)
def test_whatever_is_held_the_rest_comes(log, have, size):
    hold(log, FEED, have)
    World({"a": FEED.file}).run(begin(FEED, log, {"a": size}, target=size), log)
    assert (log.size, log.signed_size, log.root) == (size, size, FEED.root(size))
    assert log.read(0, size) == FEED.entries[:size]


@pytest.mark.parametrize(
    "size", [65_537, *(pytest.param(n, marks=pytest.mark.slow) for n in (65_536, 66_000, 70_000))]
)
@pytest.mark.parametrize("have", [0, 65_000, 65_535])
def test_a_tree_of_three_levels(log, size, have):
    hold(log, BIG, have)
    world = World({"a": BIG.file, "b": BIG.file})
    world.run(begin(BIG, log, {"a": 70_000, "b": size}, target=size), log, shuffle=True)
    assert log.signed_size == size
    assert log.root == BIG.root(size)


def test_no_tile_is_fetched_twice_and_none_that_is_not_needed(log):
    world = World({"a": BIG.file, "b": BIG.file, "c": BIG.file})
    world.run(begin(BIG, log, dict.fromkeys("abc", 70_000)), log, shuffle=True)
    refs = [request.ref for request in world.asked]
    assert len(refs) == len(set(refs))
    assert sum(ref.level is None for ref in refs) == -(-70_000 // 256)
    # The edge of each level and the one full tile of level 1; no full tile of level 0.
    assert {(ref.level, ref.index) for ref in refs if ref.level is not None} == {
        (0, 273),
        (1, 0),
        (1, 1),
        (2, 0),
    }


def test_at_most_four_at_once_of_at_most_three_sources(log):
    names = "abcde"
    world = World(dict.fromkeys(names, BIG.file))
    world.run(begin(BIG, log, dict.fromkeys(names, 70_000)), log)
    busy = {name: most for name, most in world.most_at_once.items() if most}
    assert busy == dict.fromkeys("abc", MAX_IN_FLIGHT)
    assert len(busy) == MAX_SOURCES


def flipped(feed, ref, data, at):
    out = bytearray(data)
    out[at % len(out)] ^= 1
    return bytes(out)


def truncated(feed, ref, data, at):
    return data[: at % len(data)]


def extended(feed, ref, data, at):
    return data + b"\0"


def swapped(feed, ref, data, at):
    other = ref.index - 1 if ref.index else 1
    if ref.level is None:
        return feed.file(TileRef(level=None, index=other, width=ref.width))
    return data[32:64] + data[:32] + data[64:] if len(data) > 32 else data[::-1]


def of_another_log(feed, ref, data, at):
    return OTHER.file(ref)


def empty(feed, ref, data, at):
    return b""


OTHER = Feed(3000, entry=lambda index: b"other %d" % index)
BAD = (flipped, truncated, extended, swapped, of_another_log, empty)
PLACES = (
    TileRef(level=0, index=11, width=184),
    TileRef(level=1, index=0, width=11),
    TileRef(level=None, index=11, width=184),
    TileRef(level=None, index=0),
    TileRef(level=None, index=5),
)


@pytest.mark.parametrize("damage", BAD)
@pytest.mark.parametrize("place", PLACES, ids=TileRef.path)
def test_led_01_led_02_a_bad_tile_is_blamed_on_its_source_and_mended(log, damage, place):
    lied = []

    def liar(ref):
        data = FEED.file(ref)
        if ref != place:
            return data
        lied.append(ref)
        return damage(FEED, ref, data, 777)

    world = World({"liar": liar, "honest": FEED.file})
    # The liar has what others have and is asked first; the place is asked of it sooner or later.
    download = begin(FEED, log, {"liar": 3000, "honest": 3000})
    world.run(download, log)
    assert log.root == FEED.root(3000)
    if lied:
        assert set(download.sources.blamed) == {"liar"}
        asked_after = world.asked[[one.ref for one in world.asked].index(place) :]
        assert any(one.source == "honest" and one.ref == place for one in asked_after)
    else:
        assert place.level is None


@examples(60)
@given(
    size=st.integers(1, 3000),
    have=st.integers(0, 2999),
    bad=st.sets(st.integers(0, 30), max_size=4),
    damage=st.sampled_from(BAD),
    at=st.integers(0, 10_000),
    seed=st.integers(0, 1000),
)
def test_led_01_whatever_one_source_sends_the_log_becomes_the_authors(
    tmp_path_factory, size, have, bad, damage, at, seed
):
    log = open_log(tmp_path_factory.mktemp("any") / "log")
    hold(log, FEED, min(have, size - 1))
    served = []

    def liar(ref):
        served.append(ref)
        good = FEED.file(ref)
        return damage(FEED, ref, good, at) if len(served) - 1 in bad else good

    world = World({"liar": liar, "one": FEED.file, "two": FEED.file})
    world.rng.seed(seed)
    download = begin(FEED, log, {"liar": 3000, "one": size, "two": 2999}, target=size)
    world.run(download, log, shuffle=True)
    assert log.signed_size == size
    assert log.read(0, size) == FEED.entries[:size]
    assert set(download.sources.blamed) <= {"liar"}
    log.close()


@examples(60)
@given(
    size=st.integers(1, 3000),
    have=st.integers(0, 2999),
    moods=st.lists(
        st.tuples(st.sampled_from([*Failure, *BAD]), st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 1000),
)
def test_it_comes_to_an_end_whatever_the_sources_do(tmp_path_factory, size, have, moods, seed):
    log = open_log(tmp_path_factory.mktemp("moods") / "log")
    hold(log, FEED, min(have, size - 1))
    world = World({})
    world.rng.seed(seed)

    def moody(mood, share):
        def answer(ref):
            good = FEED.file(ref)
            if world.rng.random() >= share:
                return good
            return mood if isinstance(mood, Failure) else mood(FEED, ref, good, seed)

        return answer

    world.answers = {f"{at} {mood}": moody(mood, share) for at, (mood, share) in enumerate(moods)}
    download = begin(FEED, log, dict.fromkeys(world.answers, 3000), target=size)
    world.run(download, log, shuffle=True)
    assert download.done or download.stuck(world.now_s)
    assert log.root == FEED.root(log.size)
    assert len(world.asked) < 600
    assert world.now_s < 600
    # TOO_LARGE of a whole bundle is a lie, whoever tells it.
    liars = {
        name
        for name, (mood, share) in zip(world.answers, moods, strict=True)
        if share and (mood in BAD or mood is Failure.TOO_LARGE)
    }
    assert set(download.sources.blamed) <= liars
    if any(share == 0.0 for _, share in moods):
        assert download.done
    log.close()


def test_all_sources_lie_and_nothing_false_is_stored(log):
    world = World({"a": OTHER.file, "b": lambda _: b"junk"})
    download = begin(FEED, log, {"a": 3000, "b": 3000})
    world.run(download, log)
    assert download.stuck(world.now_s)
    assert log.size == 0
    assert set(download.sources.blamed) == {"a", "b"}


def test_led_05_a_feed_that_its_author_rewrote_is_told_and_nobody_is_blamed(log):
    hold(log, OTHER, 600)
    world = World({"a": FEED.file})
    download = begin(FEED, log, {"a": 3000})
    with pytest.raises(ForkedError):
        world.run(download, log)
    assert log.size == 600
    assert not download.sources.blamed


def test_a_source_with_less_serves_what_it_has(log):
    world = World({"short": BIG.file, "long": BIG.file})
    world.run(begin(BIG, log, {"short": 40_000, "long": 70_000}), log)
    assert log.signed_size == 70_000
    of_short = [one.ref for one in world.asked if one.source == "short"]
    assert len(of_short) > 20
    assert all(ref.index * 256 + ref.width <= 40_000 for ref in of_short if ref.level is None)


def test_a_source_that_went_on_serves_all_but_the_edge(log):
    def moved(ref):
        return FEED.file(ref) if ref.width == 256 else Failure.MISSING

    world = World({"moved": moved, "still": FEED.file})
    download = begin(FEED, log, {"moved": 3000, "still": 3000})
    world.run(download, log)
    assert log.signed_size == 3000
    assert not download.sources.blamed
    assert any(one.source == "moved" and one.ref.level is None for one in world.asked)


def test_nobody_has_the_edge_any_more(log):
    download = begin(FEED, log, {"a": 3000})
    world = World({"a": lambda ref: FEED.file(ref) if ref.width == 256 else Failure.MISSING})
    world.run(download, log)
    assert download.stuck(world.now_s)
    assert log.size == 0


def test_a_source_that_fails_is_asked_again_and_then_left_aside(log):
    world = World({"dead": lambda _: Failure.LOST, "good": FEED.file})
    download = begin(FEED, log, {"dead": 3000, "good": 3000})
    world.run(download, log)
    assert log.signed_size == 3000
    world = World({"dead": lambda _: Failure.LOST})
    other = begin(BIG, log, {"dead": 70_000})
    world.run(other, log)
    assert other.stuck(world.now_s)
    assert other.sources.all["dead"].out == "lost too often"
    assert 1 < len({one.number for one in world.asked}) <= 12
    assert world.now_s > 1


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.MISSING])
@pytest.mark.parametrize("place", [(None, 5), (None, 11), (0, 11)])
def test_one_file_that_never_comes_does_not_keep_it_going_for_ever(log, failure, place):
    def all_but_one(ref):
        return failure if (ref.level, ref.index) == place else FEED.file(ref)

    world = World({"a": all_but_one})
    download = begin(FEED, log, {"a": 3000})
    world.run(download, log)
    assert download.stuck(world.now_s)
    assert len([one for one in world.asked if (one.ref.level, one.ref.index) == place]) <= 3
    World({"a": FEED.file}).run(begin(FEED, log, {"a": 3000}), log)
    assert log.signed_size == 3000


def test_a_source_that_is_busy_is_left_alone_as_long_as_it_says(log):
    download = begin(FEED, log, {"a": 3000})
    first = download.requests(0.0)
    for request in first:
        download.failed(request, Failure.BUSY, 0.0, retry_after_s=7.0)
    assert download.requests(6.99) == []
    assert not download.stuck(6.99)
    assert 7.0 <= download.wake_s(6.99) < 9.0
    again = download.requests(download.wake_s(6.99))
    assert {one.ref for one in again} == {one.ref for one in first}


def test_a_slow_answer_is_asked_of_another_and_slows_only_its_source(log):
    download = begin(FEED, log, {"slow": 3000, "fast": 3000})
    waiting = []
    now_s = 0.0
    for _ in range(500):
        waiting += download.requests(now_s)
        chunk = download.take_chunk()
        if chunk is not None:
            log.extend_verified(chunk.entries, chunk.checkpoint, chunk.proof)
            continue
        if download.done:
            break
        # The slow source answers for the edge, and then nothing.
        prompt = [one for one in waiting if one.source == "fast" or one.ref.width < 256]
        if prompt:
            waiting.remove(prompt[0])
            download.received(prompt[0], FEED.file(prompt[0].ref))
        else:
            now_s = download.wake_s(now_s)
    assert log.signed_size == 3000
    assert now_s <= SLOW_S
    for late in waiting:
        download.received(late, FEED.file(late.ref))
    assert not download.sources.blamed


@pytest.mark.slow
def test_interrupted_between_chunks_it_goes_on_from_what_the_log_has(tmp_path):
    log = open_log(tmp_path / "log")
    rounds = 0
    fetched = 0
    while log.signed_size < 70_000:
        world = World({"a": BIG.file, "b": BIG.file})
        world.run(begin(BIG, log, {"a": 70_000, "b": 70_000}), log, chunks=4, shuffle=True)
        fetched += sum(one.ref.level is None for one in world.asked)
        log.close()
        log = open_log(tmp_path / "log")
        assert log.root == BIG.root(log.size)
        rounds += 1
    log.publish()
    log.close()
    assert rounds > 5
    assert fetched < 2.5 * 70_000 / 256
    assert verify_log(tmp_path / "log", VERIFIER, ORIGIN).root == BIG.root(70_000)


def test_it_goes_on_towards_a_later_checkpoint(log):
    World({"a": BIG.file}).run(begin(BIG, log, {"a": 60_000}, target=60_000), log, chunks=2)
    assert 0 < log.size < 60_000
    World({"a": BIG.file}).run(begin(BIG, log, {"a": 70_000}), log)
    assert log.signed_size == 70_000


def test_chunks_and_what_is_on_its_way_are_bounded_however_large_entries_are(log):
    large = Feed(1100, entry=lambda index: b"%d" % index + b"x" * (60_000 if index > 200 else 9))
    download = begin(large, log, dict.fromkeys("abc", 1100))
    waiting, most = [], 0
    while not download.done:
        waiting += download.requests(0.0)
        on_the_way = sum(request.max_bytes for request in waiting)
        most = max(most, on_the_way)
        assert on_the_way <= MAX_WINDOW_BYTES + 2 * (17 << 20)
        chunk = download.take_chunk()
        if chunk is not None:
            assert sum(map(len, chunk.entries)) <= MAX_CHUNK_BYTES
            log.extend_verified(chunk.entries, chunk.checkpoint, chunk.proof)
            continue
        request = waiting.pop(0)
        data = large.file(request.ref)
        if len(data) > request.max_bytes:
            download.failed(request, Failure.TOO_LARGE, 0.0)
        else:
            download.received(request, data)
    assert log.signed_size == 1100
