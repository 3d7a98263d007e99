"""The data root: one folder, one daemon, one version of the layout."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import TYPE_CHECKING, Self

from services.base.storage import files
from services.kernel.errors import ConflictError, CorruptError, InputError, NotFoundError
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
LOW_SPACE_BYTES = 64 * 1024 * 1024

_SCHEMA_FILE = "schema"
_LOCK_FILE = "lock"
# Lower case only, so that no two names fold into one; no leading dot (those are ours), no
# trailing one (some file systems drop it).
_COMPONENT = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,198}[a-z0-9_-])?\Z")


class DataRoot:
    """The folder with all of a server's state. Nothing is touched before ``open``."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._lock_descriptor: int | None = None
        self.swept_count = 0

    @property
    def location(self) -> Path:
        """The folder itself."""
        return self._path

    def open(self) -> None:
        """Make or check the folder, lock it, clear leftovers and check the layout's version.

        Raises:
            ConflictError: ``locked``: another daemon holds it; ``schema_newer``: a newer seipd
                wrote it.
            ConfigError: ``unsafe_file`` or ``key_permissions``: it is a link, or not ours.
            CorruptError: the version can't be read.
            StorageError: the disk refused.
        """
        if self._lock_descriptor is not None:
            return
        files.make_private_dir(self._path)
        self._lock()
        try:
            self._check_schema()
            self.swept_count = files.sweep_temporaries(self._path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the folder go; may be called twice."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def path(self, *parts: str) -> Path:
        """Return a path below the root; each part may hold slashes.

        Raises:
            InputError: ``bad_path``: it would lead outside, or a name is not plain.
        """
        components = "/".join(parts).split("/")
        for component in components:
            if not _COMPONENT.match(component):
                raise InputError(f"not a file name of ours: {component[:64]!r}", code="bad_path")
        return self._path.joinpath(*components)

    def directory(self, *parts: str) -> Path:
        """Return a folder below the root, made if it was not there.

        Raises:
            InputError: ``bad_path``: as for ``path``.
            ConfigError: something on the way is a link, or not ours.
            StorageError: the disk refused.
        """
        target = self.path(*parts)
        folder = self._path
        for component in target.relative_to(self._path).parts:
            folder /= component
            files.make_private_dir(folder)
        return target

    def free_bytes(self) -> int:
        """Return how much the daemon may still write to that disk.

        Raises:
            StorageError: the disk refused.
        """
        try:
            status = os.statvfs(self._path)
        except OSError as error:
            raise files.storage_error(error, f"look at {self._path}") from error
        return status.f_bavail * status.f_frsize

    def _lock(self) -> None:
        path = self._path / _LOCK_FILE
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, files.FILE_MODE)
        except OSError as error:
            raise files.storage_error(error, f"open {path}") from error
        try:
            os.fchmod(descriptor, files.FILE_MODE)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise ConflictError(
                f"{self._path} is in use by another seipd ({holder})",
                code="locked",
                mend=f"stop {holder} first, or choose another --data-root",
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise files.storage_error(error, f"lock {path}") from error
        self._lock_descriptor = descriptor

    def _check_schema(self) -> None:
        path = self._path / _SCHEMA_FILE
        try:
            text = files.read_file(path, 64).decode("ascii")
            version = _parse_version(text.removesuffix("\n"))
        except NotFoundError:
            files.write_atomic(path, f"{SCHEMA_VERSION}\n".encode())
            return
        except (InputError, UnicodeDecodeError) as error:
            raise CorruptError(
                "the version of the data root can't be read",
                path=_SCHEMA_FILE,
                mend=f"restore {path} from a backup; this program writes {SCHEMA_VERSION}",
            ) from error
        if version > SCHEMA_VERSION:
            raise ConflictError(
                f"{self._path} has layout {version}, this seipd knows up to {SCHEMA_VERSION}",
                code="schema_newer",
                mend="install the newer seipd again",
            )


def is_low(free_bytes: int) -> bool:
    """Say whether so little space is left that nothing more is accepted."""
    return free_bytes < LOW_SPACE_BYTES


def _parse_version(text: str) -> int:
    version = parse_decimal(text)
    if version < 1:
        raise InputError("layouts are numbered from 1")
    return version


def _holder(descriptor: int) -> str:
    with contextlib.suppress(OSError, InputError, UnicodeDecodeError):
        return f"pid {parse_decimal(os.pread(descriptor, 20, 0).decode('ascii').strip())}"
    return "its pid is unknown"
