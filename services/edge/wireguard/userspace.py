"""WireGuard by wireguard-go: a TUN device, and a process that we start and that outlives us."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from services.base.crypto.agreement import x25519_public
from services.edge.wireguard import uapi
from services.edge.wireguard.backend import DeviceGoneError, DeviceRefusedError
from services.edge.wireguard.connection import UapiConnection
from services.edge.wireguard.links import bring_up, find_link, require_link, wait_until
from services.edge.wireguard.ownership import Ownership, interface_in_use
from services.edge.wireguard.ports import check_port_free, port_in_use
from services.edge.wireguard.process import (
    PROGRAM,
    WireGuardProcess,
    log_tail,
    runs_interface,
    spawn,
)
from services.kernel.errors import UnavailableError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.edge.wireguard.model import DeviceSnapshot, PeerChanges

SOCKET_DIR = Path("/var/run/wireguard")
READY_TIMEOUT_S = 10.0
_SETTLE_TIMEOUT_S = 2.0
_LONG_REPLY_BYTES = 64 * 1024


class UserspaceBackend:
    """One wireguard-go and the device it makes."""

    kind: ClassVar[str] = "userspace"

    def __init__(
        self, *, interface: str, run_dir: Path, on_gone: Callable[[], None], fwmark: int = 0
    ) -> None:
        self._interface = interface
        self._fwmark = fwmark
        self._on_gone = on_gone
        self._ownership = Ownership(interface=interface, backend=self.kind, run_dir=run_dir)
        self._log = run_dir / f"wireguard-{interface}.log"
        self._socket = SOCKET_DIR / f"{interface}.sock"
        self._connection = UapiConnection(self._socket)
        self._process: WireGuardProcess | None = None

    async def open(self, *, private_key: bytes, listen_port: int) -> bool:
        """Adopt our wireguard-go when it runs, else start it; see `Backend`."""
        await self.close()
        own_key = x25519_public(private_key)
        adopted = await self.adopt(own_key)
        if not adopted:
            await self._start(listen_port)
        try:
            await self._configure(own_key, private_key, listen_port)
        except BaseException:
            await (self.close() if adopted else self.remove())
            raise
        return not adopted

    async def adopt(self, own_key: bytes | None) -> bool:
        """Take over our running wireguard-go; False when there is none; see `Backend`."""
        link = await find_link(self._interface)
        if link is None:
            return False
        pid = await self._listener_pid()
        if pid is None:
            if await wait_until(self._is_link_gone, timeout_s=_SETTLE_TIMEOUT_S):
                return False
            raise interface_in_use(self._interface)
        self._process = WireGuardProcess(pid, on_end=self._on_gone)
        try:
            if not runs_interface(pid, self._interface):
                raise interface_in_use(self._interface)
            self._ownership.check(link, await self.read(), own_key)
        except DeviceGoneError:
            if not self._ownership.is_noted(link):
                await self.close()
                raise
            await self.remove()  # ours, and it hangs
            return False
        except BaseException:
            await self.close()
            raise
        return True

    async def apply(self, changes: PeerChanges) -> None:
        """Send one ``set``; see `Backend`."""
        await self._set(uapi.encode_set(changes))

    async def read(self) -> DeviceSnapshot:
        """Read the device; a long reply is parsed beside the loop."""
        reply = await self._connection.request(uapi.GET_REQUEST)
        try:
            if len(reply) < _LONG_REPLY_BYTES:
                return uapi.parse_get_reply(reply)
            return await asyncio.to_thread(uapi.parse_get_reply, reply)
        except WireError as error:
            raise DeviceRefusedError(f"{self._interface}: {error}") from error

    async def close(self) -> None:
        """Let go of wireguard-go, which runs on."""
        await self._connection.close()
        if self._process is not None:
            self._process.release()
            self._process = None

    async def remove(self) -> None:
        """End our wireguard-go; its interface goes with it."""
        await self._connection.close()
        if self._process is None:
            return
        await self._process.end()
        self._process = None
        await wait_until(self._is_link_gone, timeout_s=_SETTLE_TIMEOUT_S)
        if await self._listener_pid() is None:
            self._socket.unlink(missing_ok=True)  # a killed one leaves it behind
        self._ownership.forget()

    async def forget_gone(self) -> None:
        """Remove the files of one of ours that was killed, and whose interface is gone with it."""
        if self._ownership.is_there and await self._listener_pid() is None:
            self._socket.unlink(missing_ok=True)
            self._ownership.forget()
        await self._connection.close()

    async def _start(self, listen_port: int) -> None:
        check_port_free(listen_port)
        program = shutil.which(PROGRAM)
        if program is None:
            raise no_wireguard_go()
        check_socket_dir()
        if await self._listener_pid() is not None:
            # The folder of the sockets is one for all network namespaces.
            await self._connection.close()
            raise interface_in_use(self._interface)
        # Silent, since it would write a line for each handshake that fails, for ever, and nobody
        # cuts its log while we are away. Only when it does not start we let it say why.
        if not await self._run(program, "silent"):
            if await self._run(program, "error"):
                await self.remove()
            words = log_tail(self._log) or "it said nothing"
            raise UnavailableError(f"wireguard-go ended at once: {words}", code="wireguard_failed")
        self._ownership.made(await require_link(self._interface))

    async def _run(self, program: str, log_level: str) -> bool:
        """Start wireguard-go and wait until it is ready; False when it ended instead."""
        try:
            self._ownership.begin()
            pid = spawn(program, self._interface, self._log, log_level=log_level)
        except OSError as error:
            raise UnavailableError(
                f"wireguard-go can't be started: {error}", code="wireguard_failed"
            ) from error
        self._process = WireGuardProcess(pid, on_end=self._on_gone)
        try:
            if not await wait_until(self._is_decided, timeout_s=READY_TIMEOUT_S):
                raise UnavailableError("wireguard-go does not become ready")
        except BaseException:
            await self.remove()
            raise
        if self._process.has_ended:
            await self.remove()
            return False
        return True

    async def _configure(self, own_key: bytes, private_key: bytes, listen_port: int) -> None:
        if (await self.read()).public_key != own_key:
            await self._set(uapi.encode_set(private_key=private_key))
        link = await require_link(self._interface)
        if not link.is_up:
            await bring_up(link.index)
        # It binds a port of its own choice once it has seen the interface come up. Only from then
        # on does it tell that the one we want is taken.
        if not await wait_until(self._has_port, timeout_s=READY_TIMEOUT_S):
            raise UnavailableError("wireguard-go does not come up")
        if listen_port not in (0, (await self.read()).listen_port):
            await self._set(uapi.encode_set(listen_port=listen_port), port=listen_port)
        if self._fwmark:
            await self._set(uapi.encode_set(fwmark=self._fwmark))

    async def _set(self, request: bytes, *, port: int = 0) -> None:
        reply = await self._connection.request(request)
        try:
            number = uapi.parse_set_reply(reply)
        except WireError as error:
            raise DeviceRefusedError(f"{self._interface}: {error}") from error
        if number == -errno.EADDRINUSE:
            raise port_in_use(port)
        if number:
            raise DeviceRefusedError(f"{self._interface}: wireguard-go refused, errno {number}")

    async def _listener_pid(self) -> int | None:
        try:
            return await self._connection.peer_pid()
        except DeviceGoneError:
            return None

    async def _is_decided(self) -> bool:
        process = self._process
        return process is None or process.has_ended or await self._listener_pid() == process.pid

    async def _has_port(self) -> bool:
        return (await self.read()).listen_port != 0

    async def _is_link_gone(self) -> bool:
        return await find_link(self._interface) is None


def no_wireguard_go() -> UnavailableError:
    """Return the error of a machine without wireguard-go."""
    return UnavailableError(
        "this kernel has no WireGuard and wireguard-go is not installed",
        code="no_wireguard",
        mend="apt-get install wireguard-go",
    )


def check_socket_dir(folder: Path = SOCKET_DIR) -> None:
    """Check that wireguard-go can make its socket; its own words about it mislead.

    Raises:
        UnavailableError: ``wireguard_socket_dir``.
    """
    nearest = folder if folder.exists() else folder.parent
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UnavailableError(
            f"wireguard-go can't make its socket in {folder}",
            code="wireguard_socket_dir",
            mend=(
                "let the service's user own that folder: RuntimeDirectory=wireguard and"
                " RuntimeDirectoryPreserve=yes in the systemd unit"
            ),
        )
