"""Which of a server's addresses is of use here: one of the version of IP that there is a way for.

A machine may have IPv4, IPv6 or both, and others after the next change of its network. So all that
a server tells is kept, and looked through when it is used.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.marks import FWMARK
from services.kernel.places import parse_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_DISCARD_PORT: Final = 9


def has_way(host: str) -> bool:
    """Say whether this machine has a route to an address, for packets as WireGuard's own are.

    Asking for one sends nothing.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            # An exit has routes for everything, into the tunnel; only root may pass by them.
            with contextlib.suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, FWMARK)
            sock.connect((host, _DISCARD_PORT))
    except OSError:
        return False
    return True


def at_hand(
    places: Iterable[str | None], has_way: Callable[[str], bool] = has_way
) -> tuple[str, ...]:
    """Return places in an order to try them: those that there is a way to come first."""
    known = [one for one in places if one]
    return tuple(sorted(known, key=lambda one: not has_way(parse_place(one)[0])))


def mesh_at_hand(mesh: dict[str, Any], has_way: Callable[[str], bool] = has_way) -> dict[str, Any]:
    """Return what ``mesh.json`` holds with the server's addresses as they are of use now.

    What the server said of IPv4 stays in ``endpoint4`` for another time.
    """
    server = mesh["server"]
    chosen = {
        "endpoint": endpoint_at_hand(mesh, has_way),
        "endpoint4": _endpoint4(server),
        "addresses": list(at_hand(server["addresses"], has_way)),
    }
    return {**mesh, "server": {**server, **chosen}}


def endpoint_at_hand(mesh: dict[str, Any], has_way: Callable[[str], bool] = has_way) -> str:
    """Return where the server's WireGuard is for this machine now."""
    server = mesh["server"]
    return at_hand((_endpoint4(server), server.get("endpoint6")), has_way)[0]


def _endpoint4(server: dict[str, Any]) -> str:
    said: str = server.get("endpoint4") or server["endpoint"]
    return said
