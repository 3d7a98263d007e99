"""Durable, private files: every write is whole or not at all, every read distrusts the path.

A write goes to ``.tmp-…`` in the same folder, is fsynced, renamed over the old file, and the folder
is fsynced: only then does ``write_atomic`` return, and what returned survives a power cut. A file
is opened without following a symbolic link and must be a regular file with one name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from services.kernel.errors import ConfigError, NotFoundError, StorageError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

FILE_MODE = 0o600
DIR_MODE = 0o700
TEMPORARY_PREFIX = ".tmp-"

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MENDS = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EROFS: "mount that file system writable",
    errno.EMFILE: "raise the limit of open files (LimitNOFILE)",
    errno.EIO: "check the disk (dmesg): it may be failing",
    errno.EACCES: "run it as the user that owns the folder",
    errno.EPERM: "run it as the user that owns the folder",
    errno.ENOENT: "create the folder first",
}


class UnsafeFileError(ConfigError):
    """The path is a link, a device, a folder or has a second name: somebody may be playing."""

    default_code = "unsafe_file"


class KeyPermissionsError(ConfigError):
    """A file with a secret can be read or replaced by somebody else."""

    default_code = "key_permissions"


def write_atomic(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Replace a file, durably; on any failure the old one stands and no temporary is left.

    Raises:
        StorageError: the disk refused. Only if the very last step failed (the fsync of the folder)
            the new content may be there; it was not answered for.
    """
    with _mapped(path, "write"):
        folder = os.open(path.parent, _DIR_FLAGS)
        try:
            temporary = f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            try:
                _write_new(folder, temporary, data, mode)
                os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)
        finally:
            os.close(folder)


def create_exclusive(path: Path, data: bytes, mode: int = FILE_MODE) -> bool:
    """Create a file durably unless something has that name; say whether it was created.

    Raises:
        StorageError: the disk refused; nothing is left behind.
    """
    with _mapped(path, "create"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _write_new(folder, path.name, data, mode)
            os.fsync(folder)
        except FileExistsError:
            return False
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path.name, dir_fd=folder)
            raise
        else:
            return True
        finally:
            os.close(folder)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        NotFoundError: there is none.
        UnsafeFileError: a link, a device, a folder, or a file with a second name.
        TooLargeError: more than ``max_bytes``.
        StorageError: the disk refused.
    """
    with _opened(path) as (descriptor, _):
        return _read_all(descriptor, path, max_bytes)


def read_private(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file with a secret, if nobody else can read or replace it.

    Raises:
        KeyPermissionsError: group or others may read it, it is not ours (nor root's), or others
            may replace it because of its folder.
        NotFoundError: there is none.
        UnsafeFileError: a link, a device, a folder, or a file with a second name.
        TooLargeError: more than ``max_bytes``.
        StorageError: the disk refused.
    """
    with _opened_private(path) as descriptor:
        return _read_all(descriptor, path, max_bytes)


@contextlib.contextmanager
def open_private(path: Path) -> Iterator[BinaryIO]:
    """Open a file of ours for reading in pieces, under the rules of ``read_private``.

    Raises:
        KeyPermissionsError: others may read or replace it.
        NotFoundError: there is none.
        UnsafeFileError: a link, a device, a folder, or a file with a second name.
    """
    with _opened_private(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        yield file


def make_private_dir(path: Path, mode: int = DIR_MODE) -> None:
    """Make a folder, and its missing parents, that only we may enter, whatever the umask.

    Raises:
        UnsafeFileError: the name is a link or something that is not a folder.
        KeyPermissionsError: it exists and belongs to another user.
        StorageError: the disk refused.
    """
    with _mapped(path, "make"):
        if not path.parent.exists():
            make_private_dir(path.parent, mode)
        try:
            path.mkdir(mode)
            created = True
        except FileExistsError:
            created = False
        else:
            path.chmod(mode)  # an odd umask may have left us without the right to open it
        _claim_dir(path, mode)
        if created:
            fsync_dir(path.parent)


def fsync_dir(path: Path) -> None:
    """Make what was created, renamed and removed in a folder durable.

    Raises:
        StorageError: the disk refused.
    """
    with _mapped(path, "sync"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep_temporaries(root: Path) -> int:
    """Remove what interrupted writes left below a folder; return how many.

    Raises:
        StorageError: the disk refused.
    """
    removed_count = 0
    with _mapped(root, "sweep"):
        for folder, _, names in os.walk(root, followlinks=False):
            for name in names:
                if name.startswith(TEMPORARY_PREFIX):
                    Path(folder, name).unlink()
                    removed_count += 1
    return removed_count


def storage_error(error: OSError, what: str) -> StorageError:
    """Return the error for a refusal of the disk; ``what`` says what was tried."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(f"cannot {what}: {reason}", mend=_MENDS.get(error.errno or 0, ""))


def _write_new(folder: int, name: str, data: bytes, mode: int) -> None:
    descriptor = os.open(name, _CREATE_FLAGS, FILE_MODE, dir_fd=folder)
    try:
        os.fchmod(descriptor, mode)
        rest = memoryview(data)
        while rest:
            written = os.write(descriptor, rest)
            if written == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            rest = rest[written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, path: Path, max_bytes: int) -> bytes:
    data = bytearray()
    while chunk := os.read(descriptor, min(1 << 20, max_bytes + 1 - len(data))):
        data += chunk
        if len(data) > max_bytes:
            raise TooLargeError(f"{path} has more than {max_bytes} bytes")
    return bytes(data)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    with _mapped(path, "read"):
        descriptor = os.open(path, _READ_FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeFileError(f"{path} is not a regular file", mend=f"remove {path}")
            if status.st_nlink != 1:
                raise UnsafeFileError(
                    f"{path} has a second name (a hard link)",
                    mend=f"copy it: cp {path} {path}.new && mv {path}.new {path}",
                )
            yield descriptor, status
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _opened_private(path: Path) -> Iterator[int]:
    with _opened(path) as (descriptor, status):
        if status.st_mode & 0o077:
            raise KeyPermissionsError(
                f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o})",
                mend=f"chmod 600 {path}",
            )
        if status.st_uid not in {os.geteuid(), 0}:
            raise KeyPermissionsError(
                f"{path} belongs to another user (uid {status.st_uid})",
                mend=f"chown {os.geteuid()} {path}",
            )
        _check_folder(path.parent)
        yield descriptor


def _check_folder(folder: Path) -> None:
    status = folder.stat()
    # In a sticky folder (/tmp) others may add names, but neither rename nor remove ours.
    loose = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if loose or status.st_uid not in {os.geteuid(), 0}:
        raise KeyPermissionsError(
            f"others may replace what is in {folder}", mend=f"chmod go-w {folder}"
        )


def _claim_dir(path: Path, mode: int) -> None:
    descriptor = os.open(path, _DIR_FLAGS)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise KeyPermissionsError(
                f"{path} belongs to another user (uid {status.st_uid})",
                mend="run it as that user, or choose another folder",
            )
        if stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _mapped(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if verb == "read":
            raise NotFoundError(f"there is no {path}") from error
        raise storage_error(error, f"{verb} {path}") from error
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            raise UnsafeFileError(
                f"{path}: a link, a device or a file in place of a folder",
                mend=f"look at {path} and its folder, and remove what does not belong there",
            ) from error
        raise storage_error(error, f"{verb} {path}") from error
