"""Rules between endpoints: what they are, what follows, and what an agent keeps of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seipd.api.finding import find_end, find_endpoint
from seipd.api.routes import Access, Route
from services.authority.policy import view
from services.authority.policy.deciding import VIEW, is_current
from services.authority.policy.traffic import parse_traffic
from services.edge.acl.rules import name_of
from services.kernel.errors import ConflictError, InputError, NotFoundError

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

FEWEST_DIGITS: Final = 4


class RuleRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From whom to whom, and what: an endpoint, a customer or ``everybody``; ``tcp/22``."""

    source: str
    target: str
    traffic: str


class RemoveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule, by its id or the first digits of it."""

    rule: str


class ReachRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """May this endpoint send that traffic to that one? Without traffic: may it send any?"""

    source: str
    target: str
    traffic: str | None = None


async def _list(call: Call) -> Reply:
    state = call.services.ledger.state

    pairs = state.scan(VIEW)

    def scan() -> list[dict[str, Any]]:
        rows = []
        for _, key, held in pairs:
            target, _, source = key.partition("/")
            counts = is_current(state, target, source, held)
            rows += [
                {
                    "rule": rule_id,
                    "effect": "allow" if one["allows"] else "deny",
                    "source": name_of(state, source),
                    "target": name_of(state, target),
                    "traffic": one["traffic"],
                    "source_node": source,
                    "target_node": target,
                    "counts": counts,
                }
                for rule_id, one in held["rules"].items()
            ]
        return sorted(rows, key=lambda row: (row["target"], row["source"], row["traffic"]))

    return await asyncio.to_thread(scan)


async def _allow(call: Call) -> Reply:
    return await _say(call, view.ALLOW_KIND)


async def _deny(call: Call) -> Reply:
    return await _say(call, view.DENY_KIND)


async def _say(call: Call, kind: str) -> Reply:
    body: RuleRequest = call.body
    traffic = parse_traffic(body.traffic)
    state = call.services.ledger.state
    source = await asyncio.to_thread(find_end, state, body.source)
    target = await asyncio.to_thread(find_end, state, body.target)
    said = {"source": source, "target": target, "traffic": traffic.text}
    (receipt,) = await call.services.ledger.submit([call.services.author.record(kind, said)])
    return {
        "rule": receipt.record_id,
        "effect": kind.partition(".")[2],
        "source": name_of(state, source),
        "target": name_of(state, target),
        "traffic": traffic.text,
    }


async def _remove(call: Call) -> Reply:
    body: RemoveRequest = call.body
    if len(body.rule) < FEWEST_DIGITS:
        raise InputError(f"{FEWEST_DIGITS} digits of a rule's id or more, please")
    rules = call.services.ledger.state.scan(view.RULE_VIEW)

    def scan() -> list[str]:
        return [key for _, key, _ in rules if key.startswith(body.rule)]

    found = await asyncio.to_thread(scan)
    if not found:
        raise NotFoundError(f"there is no rule {body.rule[:32]}", mend="see seipd acl ls")
    if len(found) > 1:
        raise ConflictError(f"{len(found)} rules begin with {body.rule}", mend="write more digits")
    record = call.services.author.record(view.REMOVE_KIND, {"rule": found[0]})
    await call.services.ledger.submit([record])
    return {"rule": found[0], "removed": True}


async def _reach(call: Call) -> Reply:
    body: ReachRequest = call.body
    traffic = parse_traffic(body.traffic) if body.traffic is not None else None
    state = call.services.ledger.state
    source = await asyncio.to_thread(find_endpoint, state, body.source)
    target = await asyncio.to_thread(find_endpoint, state, body.target)
    answer = call.services.acl.may_reach(source, target, traffic)
    return {
        "allowed": answer.allowed,
        "reason": answer.reason,
        "open": answer.open,
        # What the rules say is not what happens where the kernel does not hold them.
        "kept": call.services.policy.is_kept,
        "rules": list(answer.rules),
        "source": source,
        "target": target,
    }


async def _inbound(call: Call) -> Reply:
    """Answer what may reach the caller; little where it has that already."""
    if call.caller is None or call.caller.node_id is None:
        raise NotFoundError("the caller is no endpoint")
    value = call.services.policy.inbound_of(call.caller.node_id).value()
    if call.query("have") == value["version"]:
        return {"version": value["version"]}
    return value


ROUTES = (
    Route(
        method="GET",
        path="/api/acl/rules",
        handler=_list,
        summary="The rules between endpoints",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/acl/allow",
        handler=_allow,
        summary="Let some traffic through",
        access=Access.OPERATOR,
        body=RuleRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/acl/deny",
        handler=_deny,
        summary="Refuse some traffic",
        access=Access.OPERATOR,
        body=RuleRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/acl/remove",
        handler=_remove,
        summary="Take a rule away",
        access=Access.OPERATOR,
        body=RemoveRequest,
    ),
    Route(
        method="POST",
        path="/api/acl/reach",
        handler=_reach,
        summary="May one endpoint reach another, and by which rule",
        access=Access.OPERATOR,
        body=ReachRequest,
    ),
    Route(
        method="GET",
        path="/api/mesh/policy",
        handler=_inbound,
        summary="What may reach the caller, for its own agent",
        access=Access.MEMBER,
    ),
)
