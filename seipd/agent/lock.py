"""One agent for one endpoint: two would take the tunnel out of each other's hands."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from services.base.storage.files import FILE_MODE, make_private_dir, storage_error
from services.kernel.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seipd.agent.state import AgentState


@contextlib.contextmanager
def only_agent(state: AgentState) -> Iterator[None]:
    """Be the one agent of an endpoint; the kernel lets go of that with the process.

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
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    except BlockingIOError as error:
        raise ConflictError(
            f"an agent of this endpoint runs already (pid {_pid_in(descriptor)})",
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
        return _pid_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def _path(state: AgentState) -> Path:
    return state.run / "lock"


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
