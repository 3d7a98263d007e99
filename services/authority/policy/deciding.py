"""May this endpoint reach that one, on which port, and by which rule? Pure.

The rules are asked from the most specific to the least, and the first that speaks of the traffic
decides: by their target, nearest first (the endpoint itself, then each customer above it, then
everybody); of one target by their source, in the same way; of one target and source the one that
speaks of less traffic; of two of these that are alike, the one that denies. Where none speaks, it
is open within a customer, and closed between customers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.authority.policy.traffic import WHOLE, Span, Traffic, parse_traffic
from services.authority.tree.permissions import ancestors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from services.kernel.views import StateReader

VIEW: Final = "acl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule between a target and a source."""

    id: str
    allows: bool
    traffic: Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a stretch of the line, and by which rule; None where none speaks of it."""

    span: Span
    allows: bool
    rule: Rule | None
    target: str = ""
    source: str = ""


def pair_key(target: str, source: str) -> str:
    """Return where the rules between two nodes lie."""
    return f"{target}/{source}"


def rules_in(held: dict[str, Any] | None) -> list[Rule]:
    """Return the rules of an object of the view."""
    if held is None:
        return []
    return [
        Rule(id=rule_id, allows=one["allows"], traffic=parse_traffic(one["traffic"]))
        for rule_id, one in held["rules"].items()
    ]


def is_current(state: StateReader, target: str, source: str, held: dict[str, Any]) -> bool:
    """Say whether an object speaks of the nodes that are there now.

    What was said of a node is not said of another that was made with its id.
    """
    nodes = (state.get("tree", target), state.get("tree", source))
    return bool(held["made"] == [node and node["record"] for node in nodes])


def rules_of(state: StateReader, target: str, source: str) -> list[Rule]:
    """Return the rules between exactly these two nodes."""
    held = state.get(VIEW, pair_key(target, source))
    return rules_in(held) if held and is_current(state, target, source, held) else []


def painted(rules: Sequence[Rule]) -> list[tuple[Span, Rule]]:
    """Lay the rules of one pair over each other; return who decides where, ascending.

    Neighbouring stretches with one answer stay apart where different rules give it.
    """
    spans = [(span, rule) for rule in rules for span in rule.traffic.spans]
    cuts = sorted({cut for (first, last), _ in spans for cut in (first, last + 1)})
    drawn: list[tuple[Span, Rule]] = []
    for first, after in itertools.pairwise(cuts):
        over = [rule for span, rule in spans if span[0] <= first and after - 1 <= span[1]]
        if not over:
            continue
        best = min(over, key=lambda rule: (rule.traffic.size, rule.allows, rule.id))
        if drawn and drawn[-1][1] is best and drawn[-1][0][1] + 1 == first:
            drawn[-1] = ((drawn[-1][0][0], after - 1), best)
        else:
            drawn.append(((first, after - 1), best))
    return drawn


def verdicts(
    state: StateReader, source: str, target: str, spans: Sequence[Span] = (WHOLE,)
) -> list[Verdict]:
    """Return what becomes of this traffic between two endpoints, ascending."""
    layers = _layers(state, source, target)
    return judged(layers, is_open=is_one_customer(state, source, target), spans=spans)


def judged(
    layers: Iterable[tuple[str, str, list[Rule]]],
    *,
    is_open: bool,
    spans: Sequence[Span] = (WHOLE,),
) -> list[Verdict]:
    """Return what becomes of traffic by the rules of these pairs, the most specific pair first.

    Args:
        layers: target, source and the rules between them.
        is_open: what holds where no rule speaks.
        spans: the traffic.
    """
    rest, found = list(spans), []
    for there, here, rules in layers:
        for span, rule in painted(rules):
            taken, rest = _cut(rest, span)
            found += [
                Verdict(span=one, allows=rule.allows, rule=rule, target=there, source=here)
                for one in taken
            ]
        if not rest:
            break
    found += [Verdict(span=span, allows=is_open, rule=None) for span in rest]
    return sorted(found, key=lambda verdict: verdict.span)


def open_spans(found: Sequence[Verdict]) -> list[Span]:
    """Return the stretches that are open, joined where they touch."""
    spans: list[Span] = []
    for verdict in found:
        if not verdict.allows:
            continue
        first, last = verdict.span
        if spans and spans[-1][1] + 1 == first:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans


def is_one_customer(state: StateReader, one: str, other: str) -> bool:
    """Say whether two endpoints hang at the same customer."""
    first, second = state.get("tree", one), state.get("tree", other)
    return first is not None and second is not None and first["parent"] == second["parent"]


def _layers(state: StateReader, source: str, target: str) -> Iterator[tuple[str, str, list[Rule]]]:
    sources = ancestors(state, source)
    for there in ancestors(state, target):
        for here in sources:
            if rules := rules_of(state, there, here):
                yield there, here, rules


def _cut(spans: list[Span], knife: Span) -> tuple[list[Span], list[Span]]:
    """Return what of these stretches lies within another one, and what does not."""
    within, without = [], []
    for first, last in spans:
        low, high = max(first, knife[0]), min(last, knife[1])
        if low > high:
            without.append((first, last))
            continue
        within.append((low, high))
        without += [span for span in ((first, low - 1), (high + 1, last)) if span[0] <= span[1]]
    return within, without
