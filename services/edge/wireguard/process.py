"""The wireguard-go process: started apart from us so that it outlives us, watched, ended.

It is not a subprocess in asyncio's sense: those die with their transport. A pidfd tells when it
ends, be it our child or adopted from an earlier run, and signals through it hit no other process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = "wireguard-go"
_TERM_TIMEOUT_S = 5.0
_LOG_TAIL_BYTES = 400


class WireGuardProcess:
    """One running wireguard-go, by pidfd."""

    def __init__(self, pid: int, *, on_end: Callable[[], None]) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._note_end)

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._ended.is_set()

    async def end(self) -> None:
        """Ask it to end, and make it when it does not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
            with suppress(TimeoutError):
                async with asyncio.timeout(_TERM_TIMEOUT_S):
                    await self._ended.wait()
                break
        self.release()

    def release(self) -> None:
        """Watch it no longer; it runs on."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _note_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        with suppress(ChildProcessError):  # adopted: somebody else reaps it
            os.waitpid(self.pid, os.WNOHANG)
        self._ended.set()
        self._on_end()


def spawn(program: str, interface: str, log: Path, *, log_level: str) -> int:
    """Start wireguard-go in a session of its own and return its pid.

    ``log_level`` is one of its own: silent, error, verbose.

    Raises:
        OSError: the program can't be run, or the log can't be written.
    """
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LOG_LEVEL": log_level,
        "WG_PROCESS_FOREGROUND": "1",
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
    return os.posix_spawn(
        program,
        [PROGRAM, "-f", interface],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    )


def runs_interface(pid: int, interface: str) -> bool:
    """Say whether a process is a wireguard-go of this interface, in our network namespace."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return False
    if Path(os.fsdecode(words[0])).name != PROGRAM or words[-1] != interface.encode():
        return False
    try:
        return Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net")
    except PermissionError:
        return True  # not ours to look into; whether it is ours at all the marker tells
    except OSError:
        return False


def log_tail(log: Path) -> str:
    """Return the last words of the log, for the error that a person reads."""
    try:
        data = log.read_bytes()[-_LOG_TAIL_BYTES:]
    except OSError:
        return ""
    lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
