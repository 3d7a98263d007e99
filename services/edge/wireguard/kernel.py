"""WireGuard in the kernel, over generic netlink.

pyroute2's calls block, so they run in one worker thread, which also keeps their order.
"""

from __future__ import annotations

import asyncio
import base64
import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pyroute2 import WireGuard
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic.wireguard import WG_CMD_SET_DEVICE, WG_GENL_VERSION, wgmsg

from services.base.crypto.agreement import x25519_public
from services.edge.wireguard import genetlink
from services.edge.wireguard.backend import DeviceGoneError, DeviceRefusedError
from services.edge.wireguard.links import (
    bring_up,
    create_wireguard_link,
    delete_link,
    find_link,
    require_link,
)
from services.edge.wireguard.ownership import Ownership, interface_in_use
from services.edge.wireguard.ports import check_port_free, port_in_use
from services.kernel.errors import ConflictError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from services.edge.wireguard.model import DeviceSnapshot, PeerChanges

KIND = "wireguard"
_ANSWER_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 5.0

T = TypeVar("T")


class KernelBackend:
    """One WireGuard interface of the kernel."""

    kind: ClassVar[str] = "kernel"

    def __init__(
        self, *, interface: str, run_dir: Path, on_gone: Callable[[], None], fwmark: int = 0
    ) -> None:
        self._interface = interface
        self._fwmark = fwmark
        self._ownership = Ownership(interface=interface, backend=self.kind, run_dir=run_dir)
        self._on_gone = on_gone
        self._worker: ThreadPoolExecutor | None = None
        self._socket: Any = None
        self._is_adopted = False

    async def open(self, *, private_key: bytes, listen_port: int) -> bool:
        """Adopt our interface when it is there, else make it; see `Backend`."""
        await self.close()
        own_key = x25519_public(private_key)
        adopted = await self.adopt(own_key)
        if not adopted:
            check_port_free(listen_port)
            self._ownership.begin()
            await create_wireguard_link(self._interface)
            self._is_adopted = True
        try:
            await self._configure(own_key, private_key, listen_port)
        except BaseException:
            await (self.close() if adopted else self.remove())
            raise
        return not adopted

    async def adopt(self, own_key: bytes | None) -> bool:
        """Take over our interface; False when there is none; see `Backend`."""
        link = await find_link(self._interface)
        if link is None:
            return False
        if link.kind != KIND:
            raise interface_in_use(self._interface)
        self._ownership.check(link, await self.read(), own_key)
        self._is_adopted = True
        return True

    async def apply(self, changes: PeerChanges) -> None:
        """Send the changes, many peers a message; see `Backend`."""
        for peers in genetlink.set_messages(changes):
            await self._call(partial(self._send, [["WGDEVICE_A_PEERS", peers]]))

    async def read(self) -> DeviceSnapshot:
        """Dump the device; see `Backend`."""
        try:
            return await self._call(self._dump)
        except WireError as error:
            raise DeviceRefusedError(f"{self._interface}: {error}") from error

    async def close(self) -> None:
        """Close the netlink socket; the interface goes on."""
        self._is_adopted = False
        if self._worker is not None:
            worker, self._worker = self._worker, None
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await asyncio.get_running_loop().run_in_executor(worker, self._close_socket)
            worker.shutdown(wait=False)
            self._socket = None  # also when the worker hangs in it: the next gets its own

    async def remove(self) -> None:
        """Delete the interface, if it is the one that was opened."""
        is_ours = self._is_adopted
        await self.close()
        if is_ours:
            link = await find_link(self._interface)
            if link is not None and link.kind == KIND:
                await delete_link(link.index)
            self._ownership.forget()

    async def _configure(self, own_key: bytes, private_key: bytes, listen_port: int) -> None:
        link = await require_link(self._interface)
        self._ownership.made(link)
        there = await self.read()
        attributes: list[list[Any]] = []
        if there.public_key != own_key:
            attributes.append(
                ["WGDEVICE_A_PRIVATE_KEY", base64.b64encode(private_key).decode("ascii")]
            )
        if listen_port not in (0, there.listen_port):
            attributes.append(["WGDEVICE_A_LISTEN_PORT", listen_port])
        if self._fwmark:
            attributes.append(["WGDEVICE_A_FWMARK", self._fwmark])
        try:
            if attributes:
                await self._call(partial(self._send, attributes))
            if not link.is_up:
                await bring_up(link.index)
        except ConflictError as error:
            raise port_in_use(listen_port) from error

    async def _call(self, work: Callable[[], T]) -> T:
        """Run blocking netlink work in the worker, in order."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"netlink-{self._interface}")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return await loop.run_in_executor(self._worker, work)
        except NetlinkError as error:
            raise self._translate(error) from error
        except (OSError, TimeoutError) as error:
            raise DeviceGoneError(f"{self._interface}: no answer from the kernel") from error

    def _translate(
        self, error: NetlinkError
    ) -> ConflictError | DeviceGoneError | DeviceRefusedError:
        match error.code:
            case errno.ENODEV:
                self._on_gone()
                return DeviceGoneError(f"the interface {self._interface} is gone")
            case errno.EADDRINUSE:
                return ConflictError("the port is in use", code="port_in_use")
            case _:
                return DeviceRefusedError(f"{self._interface}: the kernel refused: {error}")

    def _open_socket(self) -> Any:  # noqa: ANN401 (pyroute2 has no types)
        if self._socket is None:
            self._socket = WireGuard()
        return self._socket

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, attributes: list[list[Any]]) -> None:
        netlink = self._open_socket()
        message = wgmsg()
        message["cmd"] = WG_CMD_SET_DEVICE
        message["version"] = WG_GENL_VERSION
        message["attrs"] = [["WGDEVICE_A_IFNAME", self._interface], *attributes]
        tuple(
            netlink.nlm_request(message, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)
        )

    def _dump(self) -> DeviceSnapshot:
        return genetlink.snapshot(self._open_socket().info(self._interface))
