"""One question, one explained answer: may this key do this at that node, this endpoint reach that?

Pure: reads the state and the roster. Whatever can't be answered is denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.authority.policy.deciding import open_spans, verdicts
from services.authority.policy.traffic import ANY, WHOLE, spell
from services.authority.tree.permissions import (
    CAPABILITIES,
    Capability,
    ancestors,
    held_capability,
)
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.authority.policy.deciding import Verdict
    from services.authority.policy.traffic import Traffic
    from services.kernel.views import RosterReader, StateReader

EVERYBODY: Final = "everybody"
SHOWN_DIGITS: Final = 8
"""So much of a rule's id is shown to people, and enough to name it by."""
MAX_NAMED: Final = 4


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Whether one endpoint reaches another, why, what of it is open, and the rules that decide."""

    allowed: bool
    reason: str
    path: tuple[str, ...] = ()
    open: str = "nothing"
    rules: tuple[str, ...] = ()


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


def may_reach(
    state: StateReader, source: str, target: str, traffic: Traffic | None = None
) -> Reach:
    """Say whether endpoint ``source`` may send this traffic to endpoint ``target``, and by what.

    Without ``traffic``: whether it may send any, and which.
    """
    for node_id in (source, target):
        node = state.get("tree", node_id)
        if node is None or node["kind"] != "endpoint":
            return Reach(allowed=False, reason=f"no: there is no endpoint {node_id}")
    path = tuple(ancestors(state, target))
    if source == target:
        return Reach(allowed=True, reason="yes: it is the same endpoint", path=path, open=ANY)
    found = verdicts(state, source, target, traffic.spans if traffic else (WHOLE,))
    is_open = [one.allows for one in found]
    if traffic is not None and all(is_open) != any(is_open):
        shown = spell(open_spans(found))
        reason = f"no: of {traffic.text} only {shown} is open, by {_names(state, found, True)}"
        return Reach(allowed=False, reason=reason, path=path, open=shown, rules=_rules(found, True))
    allowed, shown = any(is_open), spell(open_spans(found))
    why = _names(state, found, allowed)
    if traffic is None and allowed and not all(is_open):
        why = f"open is {shown}, by {why}"
    reason = f"{'yes' if allowed else 'no'}: {why}"
    return Reach(
        allowed=allowed, reason=reason, path=path, open=shown, rules=_rules(found, allowed)
    )


def may_meet(state: StateReader, one: str, other: str) -> bool:
    """Say whether two endpoints have anything to say to each other, in either direction."""
    return any(
        may_reach(state, source, target).allowed for source, target in ((one, other), (other, one))
    )


def name_of(state: StateReader, node_id: str) -> str:
    """Return what people call a node: everybody, a customer, or an endpoint with its customer."""
    node = state.get("tree", node_id)
    if node is None:
        return node_id
    if node["kind"] == "root":
        return EVERYBODY
    if node["kind"] == "customer":
        return str(node["name"])
    customer = state.get("tree", node["parent"]) or {"name": "?"}
    return f"{node['name']}.{customer['name']}"


def _rules(found: Sequence[Verdict], allowed: bool) -> tuple[str, ...]:
    listed = [one.rule.id for one in found if one.rule is not None and one.allows is allowed]
    return tuple(dict.fromkeys(listed))


def _names(state: StateReader, found: Sequence[Verdict], allowed: bool) -> str:
    """Say in words what decides."""
    words = []
    for one in found:
        if one.allows is not allowed:
            continue
        if one.rule is None:
            words.append("both are of one customer" if allowed else "nothing opens it between them")
            continue
        ends = f"{name_of(state, one.source)} to {name_of(state, one.target)}"
        effect = "allows" if allowed else "denies"
        words.append(f"rule {one.rule.id[:SHOWN_DIGITS]} {effect} {ends} {one.rule.traffic.text}")
    return "; ".join(list(dict.fromkeys(words))[:MAX_NAMED])
