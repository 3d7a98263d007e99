"""Which server carries an endpoint: the one it attached to, else the holder of its slice. Pure.

A guest whose server leaves the roster is carried by the holder of its slice again.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from services.kernel.addr import slice_of
from services.kernel.ids import ServerId

if TYPE_CHECKING:
    from services.base.ledger.roster import Charter


def carrier_of(charter: Charter, node: dict[str, Any] | None) -> ServerId | None:
    """Return who carries a node; None for what is no endpoint with an address."""
    if node is None or "address" not in node:
        return None
    at = node.get("at")
    if at is not None and charter.server(ServerId(at)) is not None:
        return ServerId(at)
    return charter.slice_holder(str(slice_of(IPv4Address(node["address"]))))
