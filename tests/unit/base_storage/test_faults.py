"""Every system call of a write fails once, is killed once, and the power is cut at each of them."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.base.storage import files
from services.kernel.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = b"old" * 3000, b"new" * 3000
WRITE_CALLS = frozenset({"open", "fchmod", "write", "fsync", "close", "rename", "unlink"})


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class FaultyOs:
    """The os module, except that the k-th call of a write does something bad."""

    def __init__(self, at: int, fault: Callable[[], object]) -> None:
        self._at = at
        self._fault = fault
        self._killed = False
        self.count = 0

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        return self._wrap(real) if name in WRITE_CALLS else real

    def _wrap(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if self._killed:
                raise Killed
            self.count += 1
            if self.count == self._at:
                if real is os.close:
                    real(*args)  # Linux gives the descriptor back whatever close answers
                try:
                    return self._fault()
                except Killed:
                    self._killed = True
                    raise
            return real(*args, **kwargs)

        return call


def fail_with(number: int) -> Callable[[], object]:
    def fault() -> object:
        raise OSError(number, os.strerror(number))

    return fault


def kill() -> object:
    raise Killed


def sweep(monkeypatch: pytest.MonkeyPatch, path: Path, fault: Callable[[], object]):
    """Yield (outcome, faulty) for each call number until a run gets through without its fault."""
    for at in range(1, 100):
        files.write_atomic(path, OLD)
        faulty = FaultyOs(at, fault)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", faulty)
            try:
                files.write_atomic(path, NEW)
                outcome: BaseException | None = None
            except (StorageError, Killed) as error:
                outcome = error
        if faulty.count < at:
            assert outcome is None
            assert at > 8  # open folder, open, fchmod, write, fsync, close, rename, fsync
            return
        yield outcome
    pytest.fail("the sweep never ended")


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE]
)
def test_sto_03_a_refusal_at_any_call_leaves_old_or_new_and_no_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    path = tmp_path / "state"
    outcomes = []
    for outcome in sweep(monkeypatch, path, fail_with(number)):
        assert path.read_bytes() in (OLD, NEW)
        assert [entry.name for entry in tmp_path.iterdir()] == ["state"]
        assert isinstance(outcome, StorageError)
        assert outcome.code == "storage_unavailable"
        assert outcome.mend
        outcomes.append(path.read_bytes())
    # Only the fsync and the close of the folder, after the rename, may leave the new content.
    assert outcomes[:-2] == [OLD] * (len(outcomes) - 2)


def test_sto_01_a_kill_at_any_call_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "state"
    for outcome in sweep(monkeypatch, path, kill):
        assert isinstance(outcome, Killed)
        assert path.read_bytes() in (OLD, NEW)
        files.sweep_temporaries(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_sto_03_a_short_write_is_continued_and_a_write_of_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real_write = os.write
    monkeypatch.setattr(files.os, "write", lambda fd, data: real_write(fd, bytes(data)[:1000]))
    files.write_atomic(tmp_path / "state", NEW)
    assert (tmp_path / "state").read_bytes() == NEW
    monkeypatch.setattr(files.os, "write", lambda _fd, _data: 0)
    with pytest.raises(StorageError):
        files.write_atomic(tmp_path / "state", OLD)
    assert (tmp_path / "state").read_bytes() == NEW
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_sto_03_a_failed_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for at in range(2, 8):
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", FaultyOs(at, fail_with(errno.ENOSPC)))
            with pytest.raises(StorageError):
                files.create_exclusive(tmp_path / "unlock", NEW)
        assert list(tmp_path.iterdir()) == [], at


@dataclass
class Disk:
    """A disk with a cache: files and names are durable only once they were fsynced.

    What was not fsynced may or may not survive a power cut; this disk always loses it, except that
    a rename may get to the disk by itself at any time (``eager``), as journals do.
    """

    cut_at: int
    eager: bool = False
    honour_dir_fsync: bool = True
    honour_file_fsync: bool = True
    contents: dict[int, bytearray] = field(default_factory=lambda: {0: bytearray(OLD)})
    durable: dict[int, bytes] = field(default_factory=lambda: {0: OLD})
    names: dict[str, int] = field(default_factory=lambda: {"state": 0})
    durable_names: dict[str, int] = field(default_factory=lambda: {"state": 0})
    descriptors: dict[int, int | None] = field(default_factory=dict)
    count: int = 0

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def _step(self) -> None:
        self.count += 1
        if self.count > self.cut_at:
            raise Killed

    def open(self, path, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> int:
        self._step()
        descriptor = 100 + len(self.descriptors)
        if flags & os.O_DIRECTORY:
            self.descriptors[descriptor] = None
            return descriptor
        inode = len(self.contents)
        self.contents[inode] = bytearray()
        self.names[str(path)] = inode
        self.descriptors[descriptor] = inode
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        self._step()
        self.contents[self.descriptors[descriptor]] += data
        return len(data)

    def fchmod(self, descriptor: int, mode: int) -> None:
        self._step()

    def fsync(self, descriptor: int) -> None:
        self._step()
        inode = self.descriptors[descriptor]
        if inode is None:
            if self.honour_dir_fsync:
                self.durable_names = dict(self.names)
        elif self.honour_file_fsync:
            self.durable[inode] = bytes(self.contents[inode])

    def close(self, descriptor: int) -> None:
        self._step()

    def rename(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._step()
        self.names[target] = self.names.pop(source)
        if self.eager:
            self.durable_names = dict(self.names)

    def unlink(self, path: str, *, dir_fd: int) -> None:
        self._step()
        del self.names[path]

    def after_power_cut(self) -> bytes:
        return self.durable.get(self.durable_names["state"], b"")


def write_on(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> bool:
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", disk)
        try:
            files.write_atomic(Path("/data/state"), NEW)
        except Killed:
            return False
        return True


@pytest.mark.parametrize("eager", [False, True])
def test_sto_02_what_was_answered_for_survives_a_power_cut_at_any_call(
    monkeypatch: pytest.MonkeyPatch, eager: bool
):
    for cut_at in range(100):
        disk = Disk(cut_at=cut_at, eager=eager)
        answered = write_on(disk, monkeypatch)
        assert disk.after_power_cut() == NEW if answered else disk.after_power_cut() in (OLD, NEW)
        if answered:
            assert cut_at > 7
            return
    pytest.fail("the write never got through")


def test_sto_02_the_disk_above_would_notice_a_missing_fsync(monkeypatch: pytest.MonkeyPatch):
    without_dir = Disk(cut_at=100, honour_dir_fsync=False)
    assert write_on(without_dir, monkeypatch)
    assert without_dir.after_power_cut() == OLD
    without_file = Disk(cut_at=100, honour_file_fsync=False)
    assert write_on(without_file, monkeypatch)
    assert without_file.after_power_cut() == b""


def test_sto_02_a_new_folder_is_made_durable_in_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[Path] = []
    monkeypatch.setattr(files, "fsync_dir", synced.append)
    files.make_private_dir(tmp_path / "a" / "b")
    files.make_private_dir(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
