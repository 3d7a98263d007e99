"""Whether the root took a server out of the mesh, by the changes of the roster that anyone shows.

The root's signature is all that is believed, once the roster has led to the newest root key that
was seen before: an older one, stolen, removes nobody. That nothing is shown proves nothing. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.rootwalk import RootWalk
from services.base.ledger.seenroot import SeenRoot
from services.kernel.errors import SeipdError
from services.kernel.records import record_from_value
from services.mesh.proofs.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.changes import Change
    from services.kernel.ids import MeshId


class RosterWalk:
    """The roster as one address shows it: every change, in the order of the numbers."""

    def __init__(self, mesh_id: MeshId, seen: SeenRoot | None = None) -> None:
        self._mesh_id = mesh_id
        self._seen = seen or SeenRoot.of_mesh(mesh_id)
        self._root: RootWalk | None = None
        self._removed: set[str] = set()
        self.number = 0

    def shows_removal(self, records: Sequence[object], server_id: str) -> bool:
        """Take the next changes, as JSON; say whether the roster shown so far removes a server.

        Raises:
            RefusedError: ``roster_false``: one is not by the root, or another than is asked for.
        """
        for value in records:
            change = self._next(value)
            self.number += 1
            if change.number != self.number:
                raise RefusedError("a roster change is left out", code="roster_false")
            self._removed.update(one.server_id for one in change.removed)
        leads_here = self._root is not None and self._seen.is_led_to_by(self._root.chain)
        return leads_here and server_id in self._removed

    def _next(self, value: object) -> Change:
        try:
            record = record_from_value(value)
            if self._root is None:
                self._root = RootWalk.from_mesh_id(self._mesh_id, record.actor)
            return self._root.follow(record)
        except SeipdError as error:
            raise RefusedError(f"not by the root: {error}", code="roster_false") from error
