"""Whether the root took a server out of the mesh, by the changes of the roster that anyone shows.

The root's signature is all that is believed. That nothing is shown proves nothing. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.crypto.signatures import verify
from services.base.ledger.changes import CHANGE_KIND, change_from_record
from services.kernel.errors import SeipdError
from services.kernel.ids import mesh_id_of
from services.kernel.records import record_from_value
from services.mesh.proofs.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.ids import MeshId


def removal_in(
    records: Sequence[object], *, mesh_id: MeshId, server_id: str, after: int
) -> tuple[int, bool]:
    """Return the highest number of these roster changes, and whether one removes a server.

    Args:
        records: as JSON, in the order of their numbers.
        mesh_id: the mesh.
        server_id: whom to look for.
        after: the number of the change before the first of them.

    Raises:
        RefusedError: ``roster_false``: one is not by the root, or another than is asked for.
    """
    number = after
    for value in records:
        try:
            record = record_from_value(value)
            change = change_from_record(record)
        except SeipdError as error:
            raise RefusedError(f"no roster change: {error}", code="roster_false") from error
        by_root = record.kind == CHANGE_KIND and mesh_id_of(record.actor) == mesh_id
        if not by_root or not verify(record.actor, record.signed_bytes(mesh_id), record.actor_sig):
            raise RefusedError("a roster change is not by the root", code="roster_false")
        number += 1
        if change.number != number:
            raise RefusedError("a roster change is left out", code="roster_false")
        if any(one.server_id == server_id for one in change.removed):
            return number, True
    return number, False
