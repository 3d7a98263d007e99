"""The subnets behind endpoints: which server each is sent to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.tree.carriers import carrier_of
from services.authority.tree.routes import routes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.base.ledger.roster import Charter
    from services.kernel.ids import ServerId

Node = dict[str, Any]


class Routed:
    """The endpoints that carry subnets; few among many, so a roster change looks at them all."""

    def __init__(self, charter: Callable[[], Charter]) -> None:
        self._charter = charter
        self._nodes: dict[str, Node] = {}
        self._places: dict[str, ServerId | None] = {}
        self._at: dict[ServerId, set[str]] = {}

    def note(self, node_id: str, node: Node | None) -> set[ServerId]:
        """Take a node as it is now; return who has other subnets behind it than before."""
        before, after = routes_of(self._nodes.get(node_id)), routes_of(node)
        if not before and not after:
            return set()
        touched = self._forget(node_id)
        if node is None or not after:
            return touched
        place = carrier_of(self._charter(), node)
        if before == after and touched <= {place}:
            touched = set()
        elif place is not None:
            touched.add(place)
        self._nodes[node_id], self._places[node_id] = node, place
        if place is not None:
            self._at.setdefault(place, set()).update(after)
        return touched

    def roster_changed(self) -> set[ServerId]:
        """Look where everybody is now; return who has other subnets behind it than before."""
        return {one for name, node in list(self._nodes.items()) for one in self.note(name, node)}

    def of(self, server_id: ServerId) -> tuple[str, ...]:
        """Return the subnets behind the endpoints of a server."""
        return tuple(self._at.get(server_id, ()))

    def all(self) -> tuple[str, ...]:
        """Return every subnet that a server can be asked for."""
        return tuple(sorted(prefix for held in self._at.values() for prefix in held))

    def _forget(self, node_id: str) -> set[ServerId]:
        node, place = self._nodes.pop(node_id, None), self._places.pop(node_id, None)
        if place is None:
            return set()
        self._at[place].difference_update(routes_of(node))
        return {place}
