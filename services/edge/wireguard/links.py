"""Network interfaces over netlink: find, make, bring up, delete."""

from __future__ import annotations

import asyncio
import errno
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from services.kernel.errors import ConflictError, ForbiddenError, SeipdError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

NETLINK_TIMEOUT_S = 10.0
_DELETE_TIMEOUT_S = 120.0
_IFF_UP = 1


class LinkGoneError(UnavailableError):
    """The interface is not there (any more)."""

    default_code = "interface_gone"


class LinkKindError(UnavailableError):
    """This kernel does not make interfaces of that kind."""

    default_code = "no_wireguard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One interface as netlink shows it."""

    index: int
    kind: str
    is_up: bool
    mtu: int


@asynccontextmanager
async def netlink(timeout_s: float = NETLINK_TIMEOUT_S) -> AsyncIterator[Any]:
    """Give a route netlink socket for a short while; its errors come out as ours.

    Raises:
        SeipdError: what the kernel refused, or no answer in time.
    """
    try:
        async with asyncio.timeout(timeout_s), AsyncIPRoute() as socket:
            yield socket
    except NetlinkError as error:
        raise translate(error) from error
    except TimeoutError as error:
        raise UnavailableError("netlink does not answer") from error


async def find_link(name: str) -> Link | None:
    """Return the interface of this name, or None."""
    async with netlink() as socket:
        try:
            for message in await socket.link("get", ifname=name):
                return Link(
                    index=message["index"],
                    kind=message.get(("linkinfo", "kind")) or "",
                    is_up=bool(message["flags"] & _IFF_UP),
                    mtu=message.get("mtu") or 0,
                )
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise
    return None


async def require_link(name: str) -> Link:
    """Return the interface of this name.

    Raises:
        LinkGoneError: there is none.
    """
    link = await find_link(name)
    if link is None:
        raise LinkGoneError(f"interface {name} is gone")
    return link


async def create_wireguard_link(name: str) -> None:
    """Make a kernel WireGuard interface.

    Raises:
        LinkKindError: the kernel has no WireGuard.
        ConflictError: the name is taken.
    """
    async with netlink() as socket:
        await socket.link("add", ifname=name, kind="wireguard")


async def wait_until(
    ready: Callable[[], Awaitable[bool]], *, timeout_s: float, poll_s: float = 0.005
) -> bool:
    """Look again and again until it is so; False when it is not in time."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                if await ready():
                    return True
                await asyncio.sleep(poll_s)
    except TimeoutError:
        return False


async def delete_link(index: int) -> None:
    """Delete an interface; that it is gone already is fine."""
    # The kernel takes its time with the thousands of peers that go with it.
    async with netlink(_DELETE_TIMEOUT_S) as socket:
        try:
            await socket.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


async def bring_up(index: int) -> None:
    """Set an interface up.

    Raises:
        ConflictError: ``port_in_use``: a kernel WireGuard device binds its port here.
    """
    async with netlink() as socket:
        await socket.link("set", index=index, state="up")


def translate(error: NetlinkError) -> SeipdError:
    """Turn an error of netlink into one of ours."""
    match error.code:
        case errno.ENODEV:
            return LinkGoneError("the interface is gone")
        case errno.EOPNOTSUPP:
            return LinkKindError("this kernel has no WireGuard")
        case errno.EEXIST:
            return ConflictError("it exists already", code="interface_in_use")
        case errno.EADDRINUSE:
            return ConflictError("the port is in use", code="port_in_use")
        case errno.EPERM | errno.EACCES:
            return ForbiddenError(
                "the kernel lets us change no interface",
                code="needs_cap_net_admin",
                mend="run as root, or give the service CAP_NET_ADMIN",
            )
        case _:
            return UnavailableError(f"netlink refused: {error}", code="netlink_refused")
