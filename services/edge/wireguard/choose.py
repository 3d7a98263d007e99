"""Which backend: what is there already, then the kernel's, then wireguard-go."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from services.edge.wireguard import sidetable
from services.edge.wireguard.kernel import KIND, KernelBackend
from services.edge.wireguard.links import (
    LinkKindError,
    create_wireguard_link,
    delete_link,
    find_link,
    require_link,
)
from services.edge.wireguard.process import PROGRAM
from services.edge.wireguard.userspace import UserspaceBackend, no_wireguard_go
from services.kernel.errors import ForbiddenError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.edge.wireguard.backend import Backend

BackendChoice = Literal["auto", "kernel", "userspace"]

TUN_DEVICE = Path("/dev/net/tun")
_CAP_NET_ADMIN = 12


async def choose_backend(
    choice: BackendChoice,
    *,
    interface: str,
    run_dir: Path,
    on_gone: Callable[[], None],
    fwmark: int = 0,
) -> Backend:
    """Return the backend to use; leaves nothing behind.

    An interface that is there is judged by the backend of its kind, whatever was chosen: only that
    one can tell whether it is ours.

    Raises:
        ForbiddenError: ``needs_cap_net_admin``.
        UnavailableError: ``no_wireguard``: neither backend works here.
    """
    require_net_admin()
    link = await find_link(interface)

    def made(kind: type[KernelBackend | UserspaceBackend]) -> Backend:
        return kind(interface=interface, run_dir=run_dir, on_gone=on_gone, fwmark=fwmark)

    if link is not None:
        return made(KernelBackend if link.kind == KIND else UserspaceBackend)
    if choice != "userspace":
        if await kernel_has_wireguard():
            return made(KernelBackend)
        if choice == "kernel":
            raise UnavailableError(
                "this kernel has no WireGuard",
                code="no_wireguard",
                mend="load the module (modprobe wireguard), or use --wireguard-backend userspace",
            )
    if shutil.which(PROGRAM) is None:
        raise no_wireguard_go()
    if not await asyncio.to_thread(TUN_DEVICE.exists):
        raise UnavailableError(
            f"{TUN_DEVICE} is missing, wireguard-go needs it",
            code="no_wireguard",
            mend="modprobe tun; in a container pass the device in",
        )
    return made(UserspaceBackend)


async def remove_leftover(*, interface: str, run_dir: Path, public_key: bytes | None) -> bool:
    """Remove the interface that an earlier run of ours left, if there is one, and its rules.

    Returns:
        Whether there was one.

    Raises:
        ConflictError: ``interface_in_use``: there is one that is not ours; it stays.
    """
    require_net_admin()
    await sidetable.clear(interface)
    link = await find_link(interface)
    if link is None:
        gone = UserspaceBackend(interface=interface, run_dir=run_dir, on_gone=_ignore)
        await gone.forget_gone()
        return False
    kind = KernelBackend if link.kind == KIND else UserspaceBackend
    backend: Backend = kind(interface=interface, run_dir=run_dir, on_gone=_ignore)
    try:
        if not await backend.adopt(public_key):
            return False
        await backend.remove()
    finally:
        await backend.close()
    return True


async def kernel_has_wireguard() -> bool:
    """Try it: make an interface of a name that nobody has, and delete it."""
    name = f"wgprobe{secrets.token_hex(3)}"
    try:
        await create_wireguard_link(name)
    except LinkKindError:
        return False
    await delete_link((await require_link(name)).index)
    return True


def require_net_admin(status: Path = Path("/proc/self/status")) -> None:
    """Check that we may change interfaces.

    Raises:
        ForbiddenError: ``needs_cap_net_admin``.
    """
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff" and int(value, 16) >> _CAP_NET_ADMIN & 1:
            return
    raise ForbiddenError(
        "changing network interfaces needs CAP_NET_ADMIN",
        code="needs_cap_net_admin",
        mend="run as root, or give the service CAP_NET_ADMIN",
    )


def _ignore() -> None:
    """Of a device that we remove, its going is no news."""
