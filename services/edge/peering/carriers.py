"""The guests: endpoints that attached to another server than the holder of their slice. Pure.

A guest's two addresses are told to WireGuard beside the slices of the server that it is at,
everywhere.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from services.kernel.addr import slice_of
from services.kernel.ids import ServerId

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.base.ledger.roster import Charter

Node = dict[str, Any]


class Guests:
    """The endpoints that are carried by another server than the holder of their slice."""

    def __init__(self, charter: Callable[[], Charter]) -> None:
        self._charter = charter
        self._at: dict[ServerId, dict[str, IPv4Address]] = {}

    def note(self, node_id: str, old: Node | None, new: Node | None) -> set[ServerId]:
        """Take a change of a node; return whose guests are others now."""
        before = self._forget(node_id, old)
        server_id = self._host(new)
        if server_id is not None and new is not None:
            address = IPv4Address(new["address"])
            self._at.setdefault(server_id, {})[node_id] = address
            if before == (server_id, address):
                return set()
        return {one for one in (before and before[0], server_id) if one is not None}

    def of(self, server_id: ServerId) -> tuple[IPv4Address, ...]:
        """Return the tunnel addresses of a server's guests."""
        return tuple(self._at.get(server_id, {}).values())

    def turned_out(self, server_id: ServerId) -> tuple[str, ...]:
        """Forget a server that left the roster; return the nodes that were its guests."""
        return tuple(self._at.pop(server_id, {}))

    def _host(self, node: Node | None) -> ServerId | None:
        """Return whose guest a node is."""
        if node is None or "at" not in node or "address" not in node:
            return None
        charter, at = self._charter(), ServerId(node["at"])
        holder = charter.slice_holder(str(slice_of(IPv4Address(node["address"]))))
        return at if at != holder and charter.server(at) is not None else None

    def _forget(self, node_id: str, node: Node | None) -> tuple[ServerId, IPv4Address] | None:
        if node is None or "at" not in node:
            return None
        at = ServerId(node["at"])
        address = self._at.get(at, {}).pop(node_id, None)
        return None if address is None else (at, address)
