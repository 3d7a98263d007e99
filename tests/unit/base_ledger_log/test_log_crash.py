"""Every call to the disk fails once, or is the last one: what was acknowledged is there after."""

import contextlib
import errno
import shutil

import pytest

from services.base.ledger.fsck import verify_log
from services.base.ledger.merkle import Frontier, leaf_hashes
from services.kernel.errors import StorageError
from tests.unit.base_ledger_log.log_kit import (
    ORIGIN,
    VERIFIER,
    FaultyDisk,
    KilledError,
    LazyDisk,
    entries,
    grow,
    open_log,
)

STEPS = (3, "publish", 254, "reopen", 10, "publish", 2, 1, "reopen", "publish", 4)


def run(folder, disk):
    """Carry out the steps; return how many entries were acknowledged, and the log."""
    log, acked = None, 0
    try:
        log = open_log(folder, disk=disk)
        for step in STEPS:
            if step == "publish":
                log.publish()
            elif step == "reopen":
                log.close()
                log = open_log(folder, disk=disk)
            else:
                grow(log, step)
                acked += step
    except (KilledError, StorageError):
        pass
    return acked, log


def calls_in_all(tmp_path):
    root = tmp_path / "count"
    root.mkdir()
    disk = FaultyDisk(root)
    acked, log = run(root / "log", disk)
    log.close()
    assert acked == sum(step for step in STEPS if isinstance(step, int))
    return disk.calls


def check(folder, acked):
    """The folder opens, holds at least what was acknowledged, and goes on."""
    log = open_log(folder, disk=LazyDisk())
    assert log.size >= acked
    frontier = Frontier()
    frontier.extend(leaf_hashes(entries(0, log.size)))
    assert log.root == frontier.root()
    assert log.read(0, log.size) == entries(0, log.size)
    grow(log, 3)
    log.publish()
    assert verify_log(folder, VERIFIER, ORIGIN).size == log.size
    log.close()


@pytest.mark.slow
def test_sto_01_sto_02_killed_or_without_power_at_every_call(tmp_path):
    for at in range(1, calls_in_all(tmp_path) + 1):
        with scratch(tmp_path) as root:
            disk = FaultyDisk(root / "disk", fail_at=at)
            acked, log = run(root / "disk/log", disk)
            if log is not None:
                log.close()
            disk.power_cut(root / "after")
            for folder in (root / "disk/log", root / "after/log"):
                if (folder / "checkpoint").exists():
                    verify_log(folder, VERIFIER, ORIGIN)
                check(folder, acked)


@pytest.mark.slow
def test_sto_03_the_disk_refuses_at_every_call(tmp_path):
    for at in range(1, calls_in_all(tmp_path) + 1):
        with scratch(tmp_path) as root:
            error = (errno.EIO, errno.ENOSPC, errno.EROFS)[at % 3]
            disk = FaultyDisk(root / "disk", fail_at=at, error=error)
            acked, log = run(root / "disk/log", disk)
            if log is not None and log.size:
                # The disk would work again, but what is on it is not known: nothing is taken.
                with pytest.raises(StorageError):
                    grow(log, 1)
                with pytest.raises(StorageError):
                    log.publish()
                assert log.read(0, acked) == entries(0, acked)
            if log is not None:
                log.close()
            check(root / "disk/log", acked)


@contextlib.contextmanager
def scratch(tmp_path):
    root = tmp_path / "scratch"
    (root / "disk").mkdir(parents=True)
    yield root
    shutil.rmtree(root)


def test_the_power_goes_again_right_after_the_first_start(tmp_path):
    """Nothing is appended behind bytes whose sync failed before the restart."""
    root = tmp_path / "disk"
    root.mkdir()
    disk = FaultyDisk(root)
    log = open_log(root / "log", disk=disk)
    grow(log, 5)
    disk._fail_at, disk._error = disk.calls + 2, errno.EIO  # the next append's sync
    with pytest.raises(StorageError):
        grow(log, 7)
    log.close()
    log = open_log(root / "log", disk=disk)
    assert log.size == 12  # the page cache still shows the frame
    grow(log, 4)
    log.close()
    disk.power_cut(tmp_path / "after")
    check(tmp_path / "after" / "log", 16)
