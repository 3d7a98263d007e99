"""Whether the root of a mesh signed a change of the roster, by the chain that is shown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.rootwalk import RootWalk, chain_from_values
from services.kernel.errors import SeipdError
from services.kernel.records import record_from_value
from services.mesh.proofs.errors import RefusedError

if TYPE_CHECKING:
    from services.base.ledger.changes import Change
    from services.kernel.ids import MeshId
    from services.kernel.records import Record


def changes_by_root(
    values: list[object] | tuple[object, ...],
    *,
    mesh_id: MeshId,
    chain: object = None,
    now_ms: int | None = None,
    code: str = "roster_false",
) -> list[tuple[Record, Change]]:
    """Return the roster changes that are shown, each signed by the root of its number.

    Args:
        values: the changes, as JSON.
        mesh_id: the mesh.
        chain: the root key chain as it is shown, as JSON; empty where the first key signed all.
        now_ms: when the windows of the keys that signed have to be open; any time unless given.
        code: of the refusal.

    Raises:
        RefusedError: one is malformed, or not by the root.
    """
    walk = _chain(chain, mesh_id, code) if chain else None
    found = []
    for value in values:
        try:
            record = record_from_value(value)
            by = walk or RootWalk.from_mesh_id(mesh_id, record.actor)
            found.append((record, by.check(record, now_ms=now_ms)))
        except SeipdError as error:
            raise RefusedError(f"a roster change is not by the root: {error}", code=code) from error
    return found


def _chain(chain: object, mesh_id: MeshId, code: str) -> RootWalk:
    try:
        return chain_from_values(chain, mesh_id)
    except SeipdError as error:
        raise RefusedError(f"the root key chain: {error}", code=code) from error
