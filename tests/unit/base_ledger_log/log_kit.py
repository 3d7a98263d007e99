"""What the tests of the log share: a key, signed appends, and disks that fail, die or forget."""

import os
import stat
from pathlib import Path

from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint
from services.base.ledger.disk import Disk
from services.base.ledger.log import TileLog
from services.base.ledger.note import NoteVerifier

ORIGIN = "seipd/mesh/server-0000000000000001/1"
KEY = SigningKey(b"k" * 32)
VERIFIER = NoteVerifier(name=ORIGIN, public_key=KEY.public_key)


def entry(index):
    """Return the entry that the tests put at an index; lengths differ."""
    return b"entry %d " % index + b"." * (index * 7 % 90)


def entries(start, stop):
    return [entry(index) for index in range(start, stop)]


def open_log(folder, *, create=True, disk=None):
    return TileLog.open(folder, origin=ORIGIN, verifier=VERIFIER, create=create, disk=disk)


def signed(size, root, *, origin=ORIGIN, key=KEY):
    return sign_checkpoint(Checkpoint(origin=origin, size=size, root=root), signer=key, name=ORIGIN)


def append(log, fresh):
    size, root = log.root_after(fresh)
    log.append(fresh, signed(size, root))


def grow(log, count):
    append(log, entries(log.size, log.size + count))


class LazyDisk(Disk):
    """Does everything but wait for the platter."""

    def sync(self, fd):
        pass

    def sync_data(self, fd):
        pass


class KilledError(BaseException):
    """The process ends here."""


class FaultyDisk(Disk):
    """Fails or dies at the k-th call, and models what a power cut would leave.

    A file's bytes are durable once it was synced, a name once its folder was. Bytes whose sync
    failed are lost for good unless they are written again: the kernel takes them for clean.
    """

    def __init__(self, root, *, fail_at=0, error=None):
        self.calls = 0
        self._fail_at = fail_at
        self._error = error
        self._dead = False
        self._root = Path(root)
        self._names = {self._root.stat().st_ino: {}}
        self._bytes = {}
        self._lost = {}

    def _step(self):
        self.calls += 1
        if self._dead or self.calls == self._fail_at:
            if self._error is None:
                self._dead = True
                raise KilledError
            raise OSError(self._error, os.strerror(self._error))

    def open(self, path, flags):
        self._step()
        there = path.exists()
        fd = super().open(path, flags)
        if not there:
            self._bytes.pop(os.fstat(fd).st_ino, None)
        return fd

    def write(self, fd, data, offset):
        try:
            self._step()
        except BaseException:
            os.pwrite(fd, data[: len(data) // 2], offset)
            raise
        super().write(fd, data, offset)

    def sync(self, fd):
        try:
            self._step()
        except OSError:
            info = os.fstat(fd)
            self._lost[info.st_ino] = (len(self._bytes.get(info.st_ino, b"")), info.st_size)
            raise
        self._keep(fd)

    def sync_data(self, fd):
        self.sync(fd)

    def truncate(self, fd):
        self._step()
        super().truncate(fd)
        self._lost.pop(os.fstat(fd).st_ino, None)

    def close(self, fd):
        super().close(fd)
        self._step()

    def replace(self, source, target):
        self._step()
        if target.exists():
            self._bury(target)
        super().replace(source, target)

    def make_folder(self, path):
        self._step()
        there = path.exists()
        super().make_folder(path)
        if not there:
            self._names.pop(path.stat().st_ino, None)

    def open_folder(self, path):
        self._step()
        return super().open_folder(path)

    def remove(self, path):
        self._step()
        self._bury(path)

    def remove_folder(self, path):
        self._step()
        assert not list(path.iterdir())
        self._bury(path)

    def _bury(self, path):
        """Keep what loses its name: its inode must not serve again for something else."""
        graves = self._root.with_name(f"{self._root.name}-graves")
        graves.mkdir(exist_ok=True)
        path.rename(graves / f"{self.calls}")

    def _keep(self, fd):
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            folder = Path(f"/proc/self/fd/{fd}").resolve()
            self._names[info.st_ino] = {
                one.name: (one.stat().st_ino, one.is_dir()) for one in folder.iterdir()
            }
        else:
            data = bytearray(Path(f"/proc/self/fd/{fd}").read_bytes())
            start, stop = self._lost.get(info.st_ino, (0, 0))
            data[start:stop] = bytes(stop - start)
            self._bytes[info.st_ino] = bytes(data)

    def power_cut(self, target):
        """Write to ``target`` what is there when the power comes back."""
        self._rebuild(self._root.stat().st_ino, target)

    def _rebuild(self, inode, target):
        target.mkdir()
        for name, (child, is_folder) in self._names.get(inode, {}).items():
            if is_folder:
                self._rebuild(child, target / name)
            else:
                (target / name).write_bytes(self._bytes.get(child, b""))
