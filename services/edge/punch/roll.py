"""Reads in the ledger who is who."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.authority.tree.carriers import carrier_of
from services.edge.punch.parties import Party
from services.kernel.ids import parse_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.authority.ports import Json, Ledger
    from services.base.ledger.watching import Change
    from services.kernel.ids import ServerId

_TELLING: Final = ("address", "wireguard_key", "parent")


class LedgerParties:
    """Reads the ledger; satisfies Parties."""

    def __init__(self, ledger: Ledger) -> None:
        self.own_id = ledger.server_id
        self._ledger = ledger
        self._roster = -1
        self._at: dict[str, ServerId] = {}

    def party(self, address: str) -> Party | None:
        """Return the endpoint that holds a tunnel address."""
        state = self._ledger.state
        node_id = state.get("ipam", address)
        node = state.get("tree", node_id) if node_id is not None else None
        if node is None or "wireguard_key" not in node:
            return None
        return Party(
            node_id=node_id,
            key=parse_key(node["wireguard_key"]),
            carrier=carrier_of(self._ledger.charter, node),
        )

    def server_at(self, backbone: str) -> ServerId | None:
        """Return the server of the roster that has a backbone address."""
        charter = self._ledger.charter
        if charter.number != self._roster:
            self._roster = charter.number
            self._at = {one.backbone: name for name, one in charter.servers().items()}
        return self._at.get(backbone)

    def backbone_of(self, server_id: ServerId) -> str | None:
        """Return the backbone address of a server of the roster."""
        certificate = self._ledger.charter.server(server_id)
        return certificate.backbone if certificate is not None else None


def addresses_gone(changes: Iterable[Change]) -> list[str]:
    """Return the tunnel addresses whose endpoint is gone, or is another one by now."""
    return [
        change.old["address"]
        for change in changes
        if change.old is not None and "address" in change.old and _is_other(change.old, change.new)
    ]


def _is_other(old: Json, new: Json | None) -> bool:
    return new is None or any(old.get(name) != new.get(name) for name in _TELLING)
