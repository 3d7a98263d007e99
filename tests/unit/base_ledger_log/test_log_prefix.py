"""A copy on its way: entries that are a beginning of what a checkpoint signs."""

import contextlib
import errno
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.signatures import BadSignatureError, SigningKey
from services.base.ledger.checkpoint import CheckpointError
from services.base.ledger.fsck import verify_log
from services.base.ledger.merkle import Frontier, consistency_proof, leaf_hashes, range_hash
from services.base.ledger.prefix import PrefixError, parse_prefix
from services.kernel.errors import CorruptError, InputError, StorageError, WireError
from tests.fakes.thoroughness import examples
from tests.unit.base_ledger_log.log_kit import (
    ORIGIN,
    VERIFIER,
    FaultyDisk,
    KilledError,
    LazyDisk,
    entries,
    grow,
    open_log,
    signed,
)

TARGET = 1500


class Author:
    """The log as its author has it: checkpoints and proofs at any size."""

    def __init__(self, size):
        frontier = Frontier()
        self.rows = frontier.extend(leaf_hashes(entries(0, size)))
        self.size = size

    def node(self, level, index):
        return self.rows[level][index]

    def root(self, size):
        return range_hash(0, size, self.node)

    def checkpoint(self, size):
        return signed(size, self.root(size))

    def proof(self, old, new):
        return consistency_proof(old, new, self.node)


AUTHOR = Author(TARGET)
CHECKPOINT = AUTHOR.checkpoint(TARGET)


def extend(log, stop, *, target=TARGET):
    checkpoint = CHECKPOINT if target == TARGET else AUTHOR.checkpoint(target)
    proof = AUTHOR.proof(stop, target)
    log.extend_verified(entries(log.size, stop), checkpoint, proof)


def test_a_part_is_held_and_only_the_whole_is_signed(tmp_path):
    log = open_log(tmp_path / "log", disk=LazyDisk())
    grow(log, 10)
    first = log.checkpoint
    extend(log, 700)
    assert (log.size, log.signed_size, log.checkpoint) == (700, 10, first)
    assert log.signed_root == AUTHOR.root(10)
    assert log.root == AUTHOR.root(700)
    extend(log, TARGET)
    assert (log.size, log.signed_size, log.checkpoint) == (TARGET, TARGET, CHECKPOINT)
    assert log.signed_root == log.root == AUTHOR.root(TARGET)
    assert log.read(0, TARGET) == entries(0, TARGET)
    log.close()


@pytest.mark.parametrize("publish", [False, True])
@pytest.mark.parametrize("start", [0, 10, 256])
def test_it_goes_on_after_opening_again(tmp_path, publish, start):
    log = open_log(tmp_path / "log", disk=LazyDisk())
    if start:
        grow(log, start)
    for stop in (300, 512, 1300):
        extend(log, stop)
        if publish:
            log.publish()
        log.close()
        log = open_log(tmp_path / "log", create=False, disk=LazyDisk())
        assert (log.size, log.signed_size, log.root) == (stop, start, AUTHOR.root(stop))
        assert log.read(0, stop) == entries(0, stop)
        if publish:
            assert verify_log(tmp_path / "log", VERIFIER, ORIGIN).size == stop
    extend(log, TARGET)
    log.publish()
    assert not (tmp_path / "log/prefix").exists()
    assert (tmp_path / "log/checkpoint").read_bytes() == CHECKPOINT
    log.close()
    log = open_log(tmp_path / "log", create=False)
    assert (log.size, log.checkpoint) == (TARGET, CHECKPOINT)
    log.close()


def test_another_target_may_take_over_and_a_plain_append_may_end_it(tmp_path):
    log = open_log(tmp_path / "log", disk=LazyDisk())
    extend(log, 300)
    extend(log, 600, target=900)
    log.append(entries(600, 950), AUTHOR.checkpoint(950))
    assert (log.signed_size, log.checkpoint) == (950, AUTHOR.checkpoint(950))
    extend(log, 1000)
    log.close()
    log = open_log(tmp_path / "log", disk=LazyDisk())
    assert (log.size, log.signed_size, log.checkpoint) == (1000, 950, AUTHOR.checkpoint(950))
    log.close()


def test_the_published_checkpoint_and_its_tiles_stay_until_the_next(tmp_path):
    log = open_log(tmp_path / "log", disk=LazyDisk())
    grow(log, 300)
    log.publish()
    for stop in (310, 320, 330, 700):
        extend(log, stop)
        log.publish()
        assert (tmp_path / "log/checkpoint").read_bytes() == AUTHOR.checkpoint(300)
        served = {one.name for one in (tmp_path / "log/tile/entries/001.p").glob("*")}
        whole = (tmp_path / "log/tile/entries/001").exists()
        assert whole or {"44", str(stop - 256)} <= served
        assert len(served) <= 3
    log.close()


def test_what_the_checkpoint_does_not_sign_is_refused_and_changes_nothing(tmp_path):
    log = open_log(tmp_path / "log", disk=LazyDisk())
    grow(log, 10)
    good = AUTHOR.proof(700, TARGET)
    fresh = entries(10, 700)
    foreign = signed(TARGET, AUTHOR.root(TARGET), key=SigningKey(b"x" * 32))
    elsewhere = signed(TARGET, AUTHOR.root(TARGET), origin="example.com/other")
    tampered = [*fresh[:5], b"forged", *fresh[6:]]
    for wanted, bad in (
        (BadSignatureError, (tampered, CHECKPOINT, good)),
        (BadSignatureError, (fresh[:-1], CHECKPOINT, good)),
        (BadSignatureError, (fresh, CHECKPOINT, good[:-1])),
        (BadSignatureError, (fresh, CHECKPOINT, [*good, b"\0" * 32])),
        (BadSignatureError, (fresh, CHECKPOINT, [*good[:-1], b"short"])),
        (BadSignatureError, (fresh, AUTHOR.checkpoint(699), [])),
        (BadSignatureError, (fresh, foreign, good)),
        (CheckpointError, (fresh, elsewhere, good)),
        (WireError, (fresh, b"junk", good)),
        (InputError, ([], CHECKPOINT, good)),
    ):
        with pytest.raises(wanted):
            log.extend_verified(*bad)
        assert (log.size, log.signed_size) == (10, 10)
    extend(log, 700)
    log.close()


@examples(25)
@given(
    stops=st.lists(st.integers(1, TARGET), min_size=1, max_size=8, unique=True).map(sorted),
    data=st.data(),
)
def test_any_cutting_makes_the_same_log(tmp_path_factory, stops, data):
    folder = tmp_path_factory.mktemp("cut") / "log"
    log = open_log(folder, disk=LazyDisk())
    for stop in stops:
        extend(log, stop)
        match data.draw(st.sampled_from(["", "publish", "reopen"])):
            case "publish":
                log.publish()
            case "reopen":
                log.close()
                log = open_log(folder, disk=LazyDisk())
    assert log.read(0, log.size) == entries(0, stops[-1])
    if log.size < TARGET:
        extend(log, TARGET)
    log.publish()
    assert verify_log(folder, VERIFIER, ORIGIN).root == AUTHOR.root(TARGET)
    log.close()


END = 290
STEPS = (3, "publish", 250, "publish", "reopen", 255, 270, "reopen", "publish", END)


def run(folder, disk):
    """Carry out the steps, the first signed as such; return what was acknowledged."""
    log, acked = None, 0
    try:
        log = open_log(folder, disk=disk)
        for step in STEPS:
            if step == "publish":
                log.publish()
            elif step == "reopen":
                log.close()
                log = open_log(folder, disk=disk)
            elif step == STEPS[0]:
                grow(log, step)
                acked = step
            else:
                extend(log, step, target=END)
                acked = step
        log.publish()
    except (KilledError, StorageError):
        pass
    return acked, log


def check(folder, acked):
    log = open_log(folder, disk=LazyDisk())
    assert log.size >= acked
    assert log.root == AUTHOR.root(log.size)
    assert log.signed_size in {0, STEPS[0], END}
    assert acked == 0 or log.signed_size > 0
    assert log.read(0, log.size) == entries(0, log.size)
    extend(log, TARGET)
    log.publish()
    assert verify_log(folder, VERIFIER, ORIGIN).size == TARGET
    log.close()


@contextlib.contextmanager
def scratch(tmp_path):
    root = tmp_path / "scratch"
    (root / "disk").mkdir(parents=True)
    try:
        yield root
    finally:
        shutil.rmtree(root)


def calls_in_all(tmp_path):
    root = tmp_path / "count"
    root.mkdir()
    disk = FaultyDisk(root)
    acked, log = run(root / "log", disk)
    log.close()
    assert acked == END
    return disk.calls


@pytest.mark.slow
def test_sto_01_sto_02_killed_or_without_power_between_the_parts(tmp_path):
    for at in range(1, calls_in_all(tmp_path) + 1):
        with scratch(tmp_path) as root:
            disk = FaultyDisk(root / "disk", fail_at=at)
            acked, log = run(root / "disk/log", disk)
            if log is not None:
                log.close()
            disk.power_cut(root / "after")
            for folder in (root / "disk/log", root / "after/log"):
                check(folder, acked)


@pytest.mark.slow
def test_sto_03_the_disk_refuses_between_the_parts(tmp_path):
    for at in range(1, calls_in_all(tmp_path) + 1):
        with scratch(tmp_path) as root:
            error = (errno.EIO, errno.ENOSPC, errno.EROFS)[at % 3]
            disk = FaultyDisk(root / "disk", fail_at=at, error=error)
            acked, log = run(root / "disk/log", disk)
            if log is not None:
                log.close()
            check(root / "disk/log", acked)


@pytest.fixture
def partly(tmp_path):
    log = open_log(tmp_path / "log", disk=LazyDisk())
    grow(log, 10)
    extend(log, 700)
    log.publish()
    log.close()
    return tmp_path / "log"


def test_led_01_one_flipped_byte_in_the_prefix_is_found_and_named(partly):
    pristine = (partly / "prefix").read_bytes()
    for at in range(len(pristine)):
        data = bytearray(pristine)
        data[at] ^= 1
        (partly / "prefix").write_bytes(data)
        with pytest.raises(CorruptError) as caught:
            open_log(partly, create=False)
        assert caught.value.path == "prefix"


def test_a_prefix_put_back_beside_a_newer_checkpoint_means_nothing(partly):
    old = (partly / "prefix").read_bytes()
    log = open_log(partly, create=False, disk=LazyDisk())
    extend(log, TARGET)
    log.publish()
    log.close()
    (partly / "prefix").write_bytes(old)
    assert verify_log(partly, VERIFIER, ORIGIN).size == TARGET
    log = open_log(partly, create=False, disk=LazyDisk())
    assert (log.size, log.signed_size) == (TARGET, TARGET)
    grow(log, 5)
    log.publish()
    assert not (partly / "prefix").exists()
    log.close()


@examples(100)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_prefix_or_refused(data):
    with contextlib.suppress(PrefixError):
        assert parse_prefix(data).encode() == data
