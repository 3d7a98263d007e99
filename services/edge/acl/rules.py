"""One question, one explained answer: may this key do this at that node?

Pure: reads the state and the roster. Whatever can't be answered is denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.authority.tree.permissions import (
    CAPABILITIES,
    Capability,
    ancestors,
    held_capability,
)
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from services.kernel.views import RosterReader, StateReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who wants to do what, where."""

    key: bytes
    action: str
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Yes or no, and the steps that lead there."""

    allowed: bool
    reason: str
    path: tuple[str, ...]


def check(
    state: StateReader,
    roster: RosterReader,
    root_keys: frozenset[bytes],
    question: Question,
) -> Answer:
    """Answer one question.

    ``action`` is a capability: read, operate or admin. An endpoint may always read its own node.
    """
    path = tuple(ancestors(state, question.node_id))
    if not path:
        reason = f"no: there is no node {question.node_id}"
        return Answer(allowed=False, reason=reason, path=())
    wanted = CAPABILITIES.get(question.action)
    if wanted is None:
        reason = f"no: {question.action} is none of {', '.join(CAPABILITIES)}"
        return Answer(allowed=False, reason=reason, path=path)
    node = state.get("tree", question.node_id)
    own = node.get("key") == b64u_encode(question.key)
    if own and wanted is Capability.READ:
        return Answer(allowed=True, reason="yes: it is its own node", path=path)
    held = held_capability(state, roster, root_keys, key=question.key, node_id=question.node_id)
    allowed = held.capability >= wanted
    return Answer(allowed=allowed, reason=f"{'yes' if allowed else 'no'}: {held.reason}", path=path)


def may_reach(state: StateReader, source: str, target: str) -> Answer:
    """Say whether endpoint ``source`` may send packets to endpoint ``target``.

    Endpoints of one customer reach each other. Between customers no rule is enforced yet: tunnels
    are open inside the mesh.
    """
    one, other = state.get("tree", source), state.get("tree", target)
    if one is None or other is None:
        missing = source if one is None else target
        return Answer(allowed=False, reason=f"no: there is no node {missing}", path=())
    path = tuple(ancestors(state, target))
    if one["parent"] == other["parent"]:
        return Answer(allowed=True, reason="yes: both are of one customer", path=path)
    reason = "yes: no rule between customers is enforced in this version"
    return Answer(allowed=True, reason=reason, path=path)
