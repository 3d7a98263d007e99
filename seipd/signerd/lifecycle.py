"""What the signer's process asks of the system: nobody reads it, and it ends with its parent."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import stat
from typing import TYPE_CHECKING

from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


def harden() -> None:
    """Let nobody read this process: no core, no ptrace, no readable file, no swap if allowed.

    Nor does it, or a provider's library in it, gain rights by a program that it starts.

    Raises:
        ConfigError: ``not_hardened``: the kernel refused.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise ConfigError("the kernel refuses PR_SET_DUMPABLE", code="not_hardened")
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise ConfigError("the kernel refuses PR_SET_NO_NEW_PRIVS", code="not_hardened")
    # Best effort: without LimitMEMLOCK=infinity the kernel says no, and swap stays possible.
    _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)


def require_own_user(*, allow_same_user: bool) -> None:
    """Refuse to run as root, who is also the daemon's user where it starts the signer itself.

    Raises:
        ConfigError: ``insecure_user``.
    """
    if os.geteuid() == 0 and not allow_same_user:
        raise ConfigError(
            "the signer does not run as root",
            code="insecure_user",
            mend="run it as the user seipd-signer, or say --allow-insecure-same-user for a trial",
        )


def end_with(parent_pid: int) -> None:
    """Have the kernel end this process when its parent ends, however that happens.

    Raises:
        ConfigError: ``orphaned``: the parent ended before this was said.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise ConfigError("the daemon that started the signer has ended", code="orphaned")


def make_room(place: Path) -> None:
    """Remove the socket that a signer left who was killed, and nothing that is none.

    Raises:
        ConfigError: ``bad_socket``: something else is there.
    """
    try:
        if not stat.S_ISSOCK(place.lstat().st_mode):
            raise ConfigError(
                f"{place} is there and no socket",
                code="bad_socket",
                mend="choose another --socket",
            )
    except FileNotFoundError:
        return
    place.unlink()


def tell_systemd(message: str) -> None:
    """Send one message of sd_notify(3), where systemd listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.sendall(message.encode())
