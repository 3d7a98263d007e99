"""The system calls by which a log changes the disk, and a writer of whole files on top of them.

A test hands in a ``Disk`` that fails, dies or forgets what was not synced.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

FILE_MODE = 0o600
FOLDER_MODE = 0o700

_TEMPORARY = ".tmp-tile"


class Disk:
    """One method a call; each raises OSError as the call does."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file, never through a symbolic link; one that is new gets mode 0600."""
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        if flags & os.O_CREAT:
            os.fchmod(fd, FILE_MODE)  # whatever the umask says
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of it at an offset."""
        view = memoryview(data)
        while view:
            count = os.pwrite(fd, view, offset)
            offset += count
            view = view[count:]

    def sync(self, fd: int) -> None:
        """Make a file or a folder durable."""
        os.fsync(fd)

    def sync_data(self, fd: int) -> None:
        """Make a file's bytes and length durable."""
        os.fdatasync(fd)

    def truncate(self, fd: int) -> None:
        """Make a file empty."""
        os.ftruncate(fd, 0)

    def close(self, fd: int) -> None:
        """Close a file."""
        os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        """Put a file in another's place."""
        source.replace(target)

    def make_folder(self, path: Path) -> None:
        """Make a folder of mode 0700 unless it is there; what is there must be a folder."""
        try:
            path.mkdir(FOLDER_MODE)
        except FileExistsError:
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise
        else:
            path.chmod(FOLDER_MODE)

    def open_folder(self, path: Path) -> int:
        """Open a folder so that it can be synced."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()


class TreeWriter:
    """Puts whole files below a folder; they are durable once ``flush`` has returned.

    A folder is held open from before its first rename until it is synced: otherwise the kernel may
    forget a write error in between.
    """

    def __init__(self, disk: Disk, root: Path, durable_folders: set[Path]) -> None:
        self._disk = disk
        self._root = root
        self._durable = durable_folders
        self._touched: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for fd in self._touched.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self._touched.clear()

    def put(self, path: str, data: bytes) -> None:
        """Write one file: its bytes are synced, its name not before ``flush``."""
        target = self._root / path
        self._touch(target.parent)
        # One folder for the temporary: what a crash leaves is written over by the next.
        temporary = self._root / _TEMPORARY
        fd = self._disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self._disk.write(fd, data, 0)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        self._disk.replace(temporary, target)

    def flush(self) -> None:
        """Sync every folder in which something changed."""
        touched, self._touched = self._touched, {}
        try:
            for fd in touched.values():
                self._disk.sync(fd)
        finally:
            for fd in touched.values():
                self._disk.close(fd)
        # A folder of partial tiles is soon gone: not worth remembering.
        self._durable.update(folder for folder in touched if folder.suffix != ".p")

    def _touch(self, folder: Path) -> None:
        if folder in self._touched:
            return
        if folder != self._root and folder not in self._durable:
            # Its name is synced with its parent, also where a crash left it behind unsynced.
            self._touch(folder.parent)
            self._disk.make_folder(folder)
        self._touched[folder] = self._disk.open_folder(folder)


def sync_folder(disk: Disk, folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: the disk refused.
    """
    fd = disk.open_folder(folder)
    try:
        disk.sync(fd)
    finally:
        disk.close(fd)
