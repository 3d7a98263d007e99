"""One agent for one endpoint: two would take the tunnel out of each other's hands."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import TYPE_CHECKING, Final

from services.base.storage.files import FILE_MODE, make_private_dir, storage_error
from services.kernel.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seipd.agent.state import AgentState

_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")


@contextlib.contextmanager
def only_agent(state: AgentState, interface: str) -> Iterator[str | None]:
    """Be the one agent of an endpoint; the kernel lets go of that with the process.

    Yields:
        The interface of the agent before, which may have left something there; None where nobody
        knows of one.

    Raises:
        ConflictError: ``locked``: another one runs.
        StorageError: the disk refused.
    """
    make_private_dir(state.run)
    path = _path(state)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise storage_error(error, f"open {path}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = _noted_in(descriptor)[1]
        # The lock holds without that, on a disk that is full.
        with contextlib.suppress(OSError):
            written = os.pwrite(descriptor, f"{os.getpid()} {interface}\n".encode(), 0)
            os.ftruncate(descriptor, written)
        yield before
    except BlockingIOError as error:
        raise ConflictError(
            f"an agent of this endpoint runs already (pid {_noted_in(descriptor)[0]})",
            code="locked",
            mend="end it first: seip down, or systemctl stop seip",
        ) from error
    finally:
        os.close(descriptor)


def running_agent(state: AgentState) -> int | None:
    """Return the pid of the agent that runs, also one that has only just begun."""
    try:
        descriptor = os.open(_path(state), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _noted_in(descriptor)[0]
    finally:
        os.close(descriptor)
    return None


def last_interface(state: AgentState) -> str | None:
    """Return the interface of the agent that runs, or was the last to; None where none is known."""
    try:
        descriptor = os.open(_path(state), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _noted_in(descriptor)[1]
    finally:
        os.close(descriptor)


def _path(state: AgentState) -> Path:
    return state.run / "lock"


def _noted_in(descriptor: int) -> tuple[int | None, str | None]:
    """Return the pid and the interface that are noted."""
    words = os.pread(descriptor, 64, 0).decode("ascii", errors="replace").split()
    pid = int(words[0]) if words and words[0].isdecimal() else None
    has_name = len(words) > 1 and _INTERFACE.fullmatch(words[1]) is not None
    return pid, words[1] if has_name else None
