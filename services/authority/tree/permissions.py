"""Who may do what at a node: a key's capability is the highest granted at the node or above it.

``admin`` includes ``operate``, which includes ``read``. The root key is admin everywhere; a server
of the roster operates everywhere; everybody else holds what a grant says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from services.kernel.errors import RejectedError
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from services.kernel.views import FoldContext, RosterReader, StateReader

MAX_DEPTH = 32


class Capability(IntEnum):
    """What may be done; a higher one includes the lower ones."""

    NONE = 0
    READ = 1
    OPERATE = 2
    ADMIN = 3


CAPABILITIES = {one.name.lower(): one for one in Capability if one}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A capability and where it comes from, in a sentence."""

    capability: Capability
    reason: str


def ancestors(state: StateReader, node_id: str) -> list[str]:
    """Return a node and what is above it, root last; at most 32, whatever the state says."""
    path: list[str] = []
    current: str | None = node_id
    while current is not None and len(path) < MAX_DEPTH:
        node = state.get("tree", current)
        if node is None:
            break
        path.append(current)
        current = node.get("parent")
    return path


def grant_of(state: StateReader, node_id: str, key_text: str) -> dict[str, Any] | None:
    """Return what is granted to a key at a node itself, or None.

    A grant belongs to the node that it was made for: where that was removed and another made with
    the same id, it counts no more.
    """
    grant: dict[str, Any] | None = state.get("grant", f"{node_id}/{key_text}")
    node = state.get("tree", node_id)
    return grant if grant and node and grant["made"] == node["record"] else None


def held_capability(
    state: StateReader,
    roster: RosterReader,
    root_keys: frozenset[bytes],
    *,
    key: bytes,
    node_id: str,
) -> Held:
    """Return the highest capability that a key holds at a node, and why."""
    path = ancestors(state, node_id)
    if not path:
        return Held(capability=Capability.NONE, reason=f"there is no node {node_id}")
    if key in root_keys:
        return Held(capability=Capability.ADMIN, reason="the root key is admin everywhere")
    best = Held(capability=Capability.NONE, reason="no grant on the way up to the root names it")
    certificate = roster.server_of_key(key)
    if certificate is not None:
        reason = f"{certificate.server_id} is a server of the mesh, which operates everywhere"
        best = Held(capability=Capability.OPERATE, reason=reason)
    for ancestor in path:
        grant = grant_of(state, ancestor, b64u_encode(key))
        if grant is None:
            continue
        capability = CAPABILITIES[grant["capability"]]
        if capability > best.capability:
            reason = f"granted {grant['capability']} at {ancestor} by record {grant['record']}"
            best = Held(capability=capability, reason=reason)
    return best


def require(context: FoldContext, node_id: str, wanted: Capability) -> Held:
    """Check that the record's actor holds a capability at a node.

    Raises:
        RejectedError: ``rejected_unauthorised``.
    """
    held = held_capability(
        context.state,
        context.roster,
        context.root_keys,
        key=context.record.actor,
        node_id=node_id,
    )
    if held.capability < wanted:
        raise RejectedError(
            f"this needs {wanted.name.lower()} at {node_id}: {held.reason}",
            code="rejected_unauthorised",
            mend="ask who is admin there for a grant",
        )
    return held
