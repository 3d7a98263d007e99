"""Whether the root of a mesh signed a change of the roster, by the chain that is shown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.rootwalk import RootWalk, chain_from_values
from services.kernel.errors import SeipdError
from services.kernel.records import record_from_value
from services.mesh.proofs.errors import RefusedError

if TYPE_CHECKING:
    from services.base.ledger.changes import Change
    from services.base.ledger.seenroot import SeenRoot
    from services.kernel.ids import MeshId
    from services.kernel.records import Record


def shown_walk(
    chain: object, *, mesh_id: MeshId, seen: SeenRoot | None = None, code: str = "roster_false"
) -> RootWalk | None:
    """Return the root key chain that is shown, as JSON; None where the first key signed all.

    Args:
        chain: as it is shown; may be empty.
        mesh_id: the mesh.
        seen: the newest root key that was ever shown here.
        code: of the refusal.

    Raises:
        RefusedError: it is none, or ``root_old``: it does not lead to what was seen.
    """
    walk = None
    if chain:
        try:
            walk = chain_from_values(chain, mesh_id)
        except SeipdError as error:
            raise RefusedError(f"the root key chain: {error}", code=code) from error
    if seen is not None and not (seen.is_led_to_by(walk.chain) if walk else seen.is_first(mesh_id)):
        raise RefusedError(
            f"generation {seen.generation} of the root was seen here, and is not shown",
            code="root_old",
        )
    return walk


def changes_by_root(
    values: list[object] | tuple[object, ...],
    *,
    mesh_id: MeshId,
    walk: RootWalk | None = None,
    now_ms: int | None = None,
    code: str = "roster_false",
) -> list[tuple[Record, Change]]:
    """Return the roster changes that are shown, each signed by the root of its number.

    Args:
        values: the changes, as JSON.
        mesh_id: the mesh.
        walk: the root key chain that is shown; None where the first key signed all.
        now_ms: when the windows of the keys that signed have to be open; any time unless given.
        code: of the refusal.

    Raises:
        RefusedError: one is malformed, or not by the root.
    """
    found = []
    for value in values:
        try:
            record = record_from_value(value)
            by = walk or RootWalk.from_mesh_id(mesh_id, record.actor)
            found.append((record, by.check(record, now_ms=now_ms)))
        except SeipdError as error:
            raise RefusedError(f"a roster change is not by the root: {error}", code=code) from error
    return found
