"""Points this machine's resolver at the gateway and back: by resolvectl, or by its resolv.conf."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from seipd.agent.hostdns.planning import (
    Way,
    is_set,
    owner_of,
    planned,
    resolved_commands,
    restored,
    way_of,
)
from services.kernel.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from seipd.agent.hostdns.planning import Wish

RESOLV_CONF: Final = Path("/etc/resolv.conf")
NSSWITCH: Final = Path("/etc/nsswitch.conf")
PROGRAM_TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 1 << 16


class HostResolver(Protocol):
    """One of the ways."""

    @property
    def way(self) -> Way:
        """Which one."""

    async def is_set(self) -> bool:
        """Say whether names of the mesh go to the gateway still."""

    async def point(self) -> None:
        """Have them go there.

        Raises:
            SeipdError: this machine does not let us.
        """

    async def take_back(self) -> None:
        """Leave it as if it had never been; may be called twice."""


def host_resolver(wish: Wish, folder: Path) -> HostResolver:
    """Return the way that this machine finds names."""
    has_resolvectl = shutil.which("resolvectl") is not None
    way = way_of(read_text(RESOLV_CONF), read_text(NSSWITCH), has_resolvectl=has_resolvectl)
    if way is Way.RESOLVED:
        return Resolved(wish)
    return ResolvConf(wish.gateway, folder)


class ChosenResolver:
    """The way that this machine finds names when it is told: the next network may bring another."""

    def __init__(self, wish: Wish, folder: Path) -> None:
        self._wish = wish
        self._folder = folder
        self._now = host_resolver(wish, folder)

    @property
    def way(self) -> Way:
        """See HostResolver."""
        return self._now.way

    async def is_set(self) -> bool:
        """See HostResolver."""
        return await self._now.is_set()

    async def point(self) -> None:
        """See HostResolver.

        Raises:
            SeipdError: this machine does not let us.
        """
        chosen = await asyncio.to_thread(host_resolver, self._wish, self._folder)
        if chosen.way is not self._now.way:
            await self._now.take_back()
            self._now = chosen
        await self._now.point()

    async def take_back(self) -> None:
        """See HostResolver."""
        await self._now.take_back()


class Resolved:
    """systemd-resolved: the mesh's domains alone go to the gateway.

    It forgets them with the interface: another one of the same name is told anew.
    """

    way = Way.RESOLVED

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._index: int | None = None

    async def is_set(self) -> bool:
        """See HostResolver."""
        return self._index is not None and self._index == _index_of(self._wish.interface)

    async def point(self) -> None:
        """See HostResolver.

        Raises:
            UnavailableError: ``resolver_refuses``.
        """
        index = _index_of(self._wish.interface)
        for words in resolved_commands(self._wish):
            await asyncio.to_thread(run_program, words)
        self._index = index

    async def take_back(self) -> None:
        """See HostResolver."""
        self._index = None
        try:
            await asyncio.to_thread(run_program, ["resolvectl", "revert", self._wish.interface])
        except UnavailableError:
            # The interface is gone, and what was said of it with it.
            return


class ResolvConf:
    """A file: the gateway before the name servers that were there."""

    way = Way.FILE

    def __init__(self, gateway: str, folder: Path, path: Path = RESOLV_CONF) -> None:
        self._gateway = gateway
        self._folder = str(folder.absolute())
        self._path = path

    async def is_set(self) -> bool:
        """See HostResolver."""
        return is_set(read_text(self._path), gateway=self._gateway, folder=self._folder)

    async def point(self) -> None:
        """See HostResolver.

        Raises:
            ConflictError: ``resolver_taken``: another endpoint of this machine has it.
            UnavailableError: ``resolver_refuses``.
        """
        text = read_text(self._path)
        if not text.strip():
            raise UnavailableError(
                f"{self._path} names no name server",
                code="resolver_refuses",
                mend="write a nameserver line, or seip up --no-dns",
            )
        owner = owner_of(text)
        if owner not in (None, self._folder):
            raise ConflictError(f"{self._path} is set by {owner}", code="resolver_taken")
        _write(self._path, planned(text, gateway=self._gateway, folder=self._folder))

    async def take_back(self) -> None:
        """See HostResolver."""
        restore_file(Path(self._folder), self._path)


def restore_file(folder: Path, path: Path = RESOLV_CONF) -> bool:
    """Take out of a resolv.conf what an endpoint put there, now or before a crash.

    Returns:
        Whether something was there.

    Raises:
        UnavailableError: ``resolver_refuses``.
    """
    text = read_text(path)
    before = restored(text, folder=str(folder.absolute()))
    if before == text:
        return False
    _write(path, before)
    return True


def read_text(path: Path) -> str:
    """Return what stands in a file; nothing where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", errors="surrogateescape")
    except OSError:
        return ""


def run_program(words: list[str]) -> None:
    """Run a program.

    Raises:
        UnavailableError: ``resolver_refuses``: it failed, or is not there.
    """
    try:
        done = subprocess.run(  # noqa: S603 (resolvectl, with words of our own)
            words, capture_output=True, text=True, check=False, timeout=PROGRAM_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{words[0]}: {error}", code="resolver_refuses") from error
    if done.returncode:
        said = done.stderr.strip()
        raise UnavailableError(f"{' '.join(words[:2])}: {said}", code="resolver_refuses")


def _index_of(interface: str) -> int | None:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None


def _write(path: Path, text: str) -> None:
    """Write in place: the file may be a link or a mount point, which nothing can be renamed to.

    Longer or shorter, it is whole but for the moment between two calls; it is never empty.
    """
    data = text.encode("utf-8", errors="surrogateescape")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, data, 0)
            os.ftruncate(descriptor, len(data))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnavailableError(
            f"{path} can't be written: {error.strerror}",
            code="resolver_refuses",
            mend="let root write it, or seip up --no-dns",
        ) from error
