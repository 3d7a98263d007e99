"""One log in a folder: appending, reading, proving, publishing, opening again."""

import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.signatures import BadSignatureError, SigningKey
from services.base.ledger.checkpoint import CheckpointError, verify_checkpoint
from services.base.ledger.fsck import verify_log
from services.base.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    leaf_hash,
    leaf_hashes,
    verify_consistency,
    verify_inclusion,
)
from services.kernel.errors import ConflictError, InputError, NotFoundError, StorageError
from tests.fakes.thoroughness import examples
from tests.unit.base_ledger_log.log_kit import (
    ORIGIN,
    VERIFIER,
    FaultyDisk,
    LazyDisk,
    append,
    entries,
    entry,
    grow,
    open_log,
    signed,
)


def reference_root(size):
    frontier = Frontier()
    frontier.extend(leaf_hashes(entries(0, size)))
    return frontier.root()


def test_a_new_log_is_empty_and_publishes_nothing(tmp_path):
    log = open_log(tmp_path / "a" / "log")
    assert (log.size, log.root, log.checkpoint) == (0, EMPTY_ROOT, None)
    log.publish()
    assert not (tmp_path / "a" / "log" / "checkpoint").exists()
    assert log.read(0, 0) == []


def test_a_folder_without_a_log_is_not_opened_unless_asked(tmp_path):
    with pytest.raises(NotFoundError):
        open_log(tmp_path, create=False)


def test_what_was_appended_is_there_after_opening_again(tmp_path):
    log = open_log(tmp_path)
    grow(log, 3)
    grow(log, 300)
    checkpoint = log.checkpoint
    log.close()
    log = open_log(tmp_path, create=False)
    assert log.size == 303
    assert log.root == reference_root(303)
    assert log.read(0, 303) == entries(0, 303)
    assert log.checkpoint == checkpoint
    assert verify_checkpoint(checkpoint, VERIFIER, ORIGIN).root == log.root


@examples(25)
@given(
    st.lists(
        st.one_of(st.integers(1, 300), st.just("publish"), st.just("reopen")),
        min_size=1,
        max_size=9,
    ),
    st.data(),
)
def test_any_grouping_makes_one_log(tmp_path_factory, steps, data):
    folder = tmp_path_factory.mktemp("grouping")
    log = open_log(folder, disk=LazyDisk())
    for step in steps:
        if step == "publish":
            log.publish()
        elif step == "reopen":
            log.close()
            log = open_log(folder, disk=LazyDisk())
        else:
            grow(log, step)
    size = log.size
    assert log.root == reference_root(size)
    assert log.read(0, size) == entries(0, size)
    if size:
        old = data.draw(st.integers(1, size))
        index = data.draw(st.integers(0, old - 1))
        check_proofs(log, index, old, size)
        log.publish()
        assert verify_log(folder, VERIFIER, ORIGIN).root == log.root
    log.close()


def check_proofs(log, index, old, new):
    assert log.leaf_hash(index) == leaf_hash(entry(index))
    assert log.root_at(old) == reference_root(old)
    verify_inclusion(
        index=index,
        size=old,
        leaf=log.leaf_hash(index),
        proof=log.inclusion_proof(index, old),
        root=log.root_at(old),
    )
    verify_consistency(
        old=old,
        new=new,
        old_root=log.root_at(old),
        new_root=log.root_at(new),
        proof=log.consistency_proof(old, new),
    )


def test_a_log_of_three_levels_of_tiles(tmp_path):
    size = 66_000
    log = open_log(tmp_path, disk=LazyDisk())
    data = [b"%d" % i for i in range(size)]
    append(log, data[:65_536])
    log.publish()
    append(log, data[65_536:])
    log.publish()
    log.close()
    assert (tmp_path / "tile/1/000").exists()
    assert (tmp_path / "tile/2/000.p/1").exists()
    log = open_log(tmp_path)
    frontier = Frontier()
    frontier.extend(leaf_hashes(data))
    assert (log.size, log.root) == (size, frontier.root())
    for index in (0, 255, 256, 65_535, 65_536, size - 1):
        assert log.read(index, index + 1) == [data[index]]
        verify_inclusion(
            index=index,
            size=size,
            leaf=leaf_hash(data[index]),
            proof=log.inclusion_proof(index, size),
            root=log.root,
        )
    assert verify_log(tmp_path, VERIFIER, ORIGIN).size == size


def test_partial_tiles_of_the_last_two_checkpoints_stay(tmp_path):
    log = open_log(tmp_path)
    for _ in range(4):
        grow(log, 5)
        log.publish()
    kept = {path.name for path in (tmp_path / "tile/0/000.p").iterdir()}
    assert kept == {"15", "20"}
    grow(log, 300)
    log.publish()
    assert not (tmp_path / "tile/0/000.p").exists()
    assert not (tmp_path / "tile/entries/000.p").exists()
    assert verify_log(tmp_path, VERIFIER, ORIGIN).size == 320


def test_only_the_newest_checkpoint_is_ahead_of_what_is_published(tmp_path):
    log = open_log(tmp_path)
    grow(log, 10)
    log.publish()
    grow(log, 5)
    assert verify_log(tmp_path, VERIFIER, ORIGIN).size == 10
    assert (log.size, log.published_size) == (15, 10)
    assert (tmp_path / "journal").stat().st_size > 0
    log.publish()
    assert verify_log(tmp_path, VERIFIER, ORIGIN).size == 15
    assert (tmp_path / "journal").stat().st_size == 0


def test_a_checkpoint_that_is_not_of_these_entries_is_refused(tmp_path):
    log = open_log(tmp_path)
    grow(log, 3)
    size, root = log.root_after([b"x"])
    for checkpoint in (signed(size, bytes(32)), signed(size + 1, root), log.checkpoint):
        with pytest.raises(ConflictError) as caught:
            log.append([b"x"], checkpoint)
        assert caught.value.code == "checkpoint_mismatch"
    with pytest.raises(BadSignatureError):
        log.append([b"x"], signed(size, root, key=SigningKey(b"z" * 32)))
    with pytest.raises(CheckpointError):
        log.append([b"x"], signed(size, root, origin="another"))
    assert log.size == 3
    log.append([b"x"], signed(size, root))
    assert log.read(3, 4) == [b"x"]


def test_root_after_changes_nothing(tmp_path):
    log = open_log(tmp_path)
    grow(log, 3)
    before = (log.size, log.root)
    assert log.root_after([b"x"]) != log.root_after([b"y"])
    assert (log.size, log.root) == before


def test_nothing_and_too_much_are_not_appended(tmp_path):
    log = open_log(tmp_path)
    for bad in ([], [bytes(65_536)], [bytes(65_535)] * 300):
        with pytest.raises(InputError):
            log.root_after(bad)


def test_what_is_not_there_is_not_read(tmp_path):
    log = open_log(tmp_path)
    grow(log, 5)
    for start, stop in ((0, 6), (-1, 2), (4, 3), (6, 6)):
        with pytest.raises(InputError):
            log.read(start, stop)
    for call in (
        lambda: log.leaf_hash(5),
        lambda: log.root_at(6),
        lambda: log.inclusion_proof(5, 5),
        lambda: log.inclusion_proof(0, 6),
        lambda: log.consistency_proof(0, 5),
        lambda: log.consistency_proof(5, 6),
    ):
        with pytest.raises(InputError):
            call()


def test_led_12_a_second_writer_is_refused(tmp_path):
    log = open_log(tmp_path)
    with pytest.raises(ConflictError) as caught:
        open_log(tmp_path)
    assert caught.value.code == "locked"
    log.close()
    open_log(tmp_path).close()


def test_a_closed_log_takes_nothing(tmp_path):
    log = open_log(tmp_path)
    grow(log, 1)
    log.close()
    log.close()
    with pytest.raises(StorageError):
        grow(log, 1)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_sto_11_files_are_private_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        log = open_log(tmp_path / "deep" / "log")
        grow(log, 300)
        log.publish()
    finally:
        os.umask(before)
    for path in (tmp_path / "deep").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_full_journal_is_published_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("services.base.ledger.log.MAX_JOURNAL_BYTES", 2000)
    log = open_log(tmp_path)
    for _ in range(30):
        grow(log, 5)
        assert (tmp_path / "journal").stat().st_size < 4000
    assert log.published_size > 0
    assert log.read(0, 150) == entries(0, 150)


def test_an_append_is_one_write_and_one_sync(tmp_path):
    log_disk = FaultyDisk(tmp_path)
    log = open_log(tmp_path / "log", disk=log_disk)
    grow(log, 1)
    before = log_disk.calls
    grow(log, 64)
    assert log_disk.calls - before == 2


def test_memory_does_not_grow_with_the_log(tmp_path):
    log = open_log(tmp_path, disk=LazyDisk())
    for _ in range(40):
        append(log, [b"e" * 20] * 1000)
        log.publish()
    reader = log._reader
    held = sum(len(row) for row in reader._edge) + sum(map(len, reader._fresh.values()))
    assert held < 3 * 8192
    assert not log._tail


def test_others_read_and_judge_while_one_writes(tmp_path):
    log = open_log(tmp_path, disk=LazyDisk())
    grow(log, 1)
    log.publish()
    done = threading.Event()

    def write():
        try:
            for _ in range(40):
                grow(log, 37)
                log.publish()
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while not done.is_set() or not looks:
        size = log.size
        assert log.read(0, size) == entries(0, size)
        check_proofs(log, size // 3, size // 2 + 1, size)
        assert verify_log(tmp_path, VERIFIER, ORIGIN).size <= log.size
        looks += 1
    writer.join()
    assert log.size == 1 + 40 * 37
