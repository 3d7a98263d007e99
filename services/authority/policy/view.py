"""Rules between endpoints: who may reach whom on which port.

    acl/<target>/<source>   {made, rules: {<rule>: {allows, traffic, by, customer}}}; made are the
                            records that made the two nodes
    aclrule/<rule>          [target, source]: where a rule lies
    aclcount/<customer>     how many rules are charged to a customer; ``all``: how many there are

Kinds: ``acl.allow`` and ``acl.deny`` {source, target, traffic}, ``acl.remove`` {rule}. Source and
target are nodes: an endpoint, a customer with everything below it, the root for everybody. A rule's
id is its record's.

What opens something needs ``operate`` at both ends; whoever operates a node above both does. What
closes something needs it at one end: nobody is made to reach, or to be reached. So a rule that
allows is taken away by either end, and one that denies by the ends that its author operated, noted
in ``by``. A rule is charged to the customer of its target, or of its source where its author
operates only that: nobody uses up what is another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.authority.policy.deciding import VIEW, is_current, pair_key
from services.authority.policy.traffic import parse_traffic
from services.authority.tree.permissions import Capability, held_capability
from services.authority.tree.view import node_of
from services.kernel.errors import InputError, RejectedError

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext, StateWriter

RULE_VIEW: Final = "aclrule"
COUNT_VIEW: Final = "aclcount"
ALLOW_KIND: Final = "acl.allow"
DENY_KIND: Final = "acl.deny"
REMOVE_KIND: Final = "acl.remove"
ALL: Final = "all"
MAX_RULES: Final = 10_000
MAX_RULES_A_CUSTOMER: Final = 1_000
MAX_RULES_A_PAIR: Final = 64

_Id = Annotated[str, msgspec.Meta(max_length=36)]


class _RuleWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: _Id
    target: _Id
    traffic: Annotated[str, msgspec.Meta(max_length=16)]


class _RemoveWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: _Id


def _allow(context: FoldContext, body: dict[str, Any]) -> None:
    wire = _converted(body, _RuleWire, ALLOW_KIND)
    _require_ends(context, wire)
    missing = [end for end in (wire.target, wire.source) if not _operates(context, end)]
    if missing:
        raise _unauthorised(f"what opens something needs operate at both ends, {missing[0]} too")
    _add(context, wire, allows=True, by=["target", "source"])


def _deny(context: FoldContext, body: dict[str, Any]) -> None:
    wire = _converted(body, _RuleWire, DENY_KIND)
    _require_ends(context, wire)
    ends = {"target": wire.target, "source": wire.source}
    by = [name for name, end in ends.items() if _operates(context, end)]
    if not by:
        raise _unauthorised("what closes something needs operate at one of its ends")
    _add(context, wire, allows=False, by=by)


def _add(context: FoldContext, wire: _RuleWire, *, allows: bool, by: list[str]) -> None:
    state, key = context.state, pair_key(wire.target, wire.source)
    parse_traffic(wire.traffic)
    held = state.get(VIEW, key)
    if held is not None and not is_current(state, wire.target, wire.source, held):
        for rule_id, one in held["rules"].items():
            _forget(state, rule_id, one)
        held = None
    rules: dict[str, Any] = held["rules"] if held is not None else {}
    said = {"allows": allows, "traffic": wire.traffic}
    if any(said.items() <= one.items() for one in rules.values()):
        raise RejectedError("there is such a rule already", code="duplicate_id")
    customer = _customer_of(state, wire.target if "target" in by else wire.source)
    _require_room(state, len(rules), customer)
    made = [node_of(state, end)["record"] for end in (wire.target, wire.source)]
    new = {**said, "by": by, "customer": customer}
    state.put(VIEW, key, {"made": made, "rules": {**rules, context.record.id: new}})
    state.put(RULE_VIEW, context.record.id, [wire.target, wire.source])
    _count(state, customer, 1)


def _remove(context: FoldContext, body: dict[str, Any]) -> None:
    wire = _converted(body, _RemoveWire, REMOVE_KIND)
    state = context.state
    place = state.get(RULE_VIEW, wire.rule)
    if place is None:
        raise RejectedError("there is no such rule", code="rejected_orphan")
    target, source = place
    held = state.get(VIEW, pair_key(target, source))
    rule = held["rules"][wire.rule]
    fallback = rule["customer"]
    operated = {
        name
        for name, end in (("target", target), ("source", source))
        if _operates(context, end, fallback)
    }
    may = bool(operated) if rule["allows"] else operated.issuperset(rule["by"])
    if not may:
        ends = "one of its ends" if rule["allows"] else " and ".join(rule["by"])
        raise _unauthorised(f"taking this rule away needs operate at {ends}")
    rest = {rule_id: one for rule_id, one in held["rules"].items() if rule_id != wire.rule}
    if rest:
        state.put(VIEW, pair_key(target, source), {**held, "rules": rest})
    else:
        state.delete(VIEW, pair_key(target, source))
    _forget(state, wire.rule, rule)


def _require_ends(context: FoldContext, wire: _RuleWire) -> None:
    target = node_of(context.state, wire.target)
    node_of(context.state, wire.source)
    if wire.source == wire.target and target["kind"] == "endpoint":
        raise RejectedError("an endpoint always reaches itself", code="rejected_scope")


def _operates(context: FoldContext, node_id: str, fallback: str = "") -> bool:
    """Say whether the actor operates a node; where it is gone, another, or else the root."""
    state = context.state
    root: str = state.get("mesh", "root_node")
    there = next((one for one in (node_id, fallback) if state.get("tree", one)), root)
    held = held_capability(
        state, context.roster, context.root_keys, key=context.record.actor, node_id=there
    )
    return held.capability >= Capability.OPERATE


def _customer_of(state: StateWriter, node_id: str) -> str:
    node = node_of(state, node_id)
    parent: str = node["parent"] if node["kind"] == "endpoint" else node_id
    return parent


def _require_room(state: StateWriter, in_pair: int, customer: str) -> None:
    limits = (
        (in_pair, MAX_RULES_A_PAIR, "two nodes have {} rules between them"),
        (state.get(COUNT_VIEW, customer) or 0, MAX_RULES_A_CUSTOMER, "a customer has {} rules"),
        (state.get(COUNT_VIEW, ALL) or 0, MAX_RULES, "a mesh has {} rules"),
    )
    for count, limit, words in limits:
        if count >= limit:
            raise RejectedError(f"{words.format(limit)} at most", code="too_many")


def _forget(state: StateWriter, rule_id: str, rule: dict[str, Any]) -> None:
    state.delete(RULE_VIEW, rule_id)
    _count(state, rule["customer"], -1)


def _count(state: StateWriter, customer: str, step: int) -> None:
    for key in (customer, ALL):
        count = (state.get(COUNT_VIEW, key) or 0) + step
        if count:
            state.put(COUNT_VIEW, key, count)
        else:
            state.delete(COUNT_VIEW, key)


def _unauthorised(why: str) -> RejectedError:
    return RejectedError(
        why, code="rejected_unauthorised", mend="ask who is admin there for a grant"
    )


def _converted(body: dict[str, Any], kind: Any, name: str) -> Any:  # noqa: ANN401 (msgspec's)
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {error}") from error


APPLIERS: Appliers = {ALLOW_KIND: _allow, DENY_KIND: _deny, REMOVE_KIND: _remove}
