"""Addresses and blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.edge.acl.rules import Question
from services.kernel.errors import NotFoundError

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class AllocateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A block for a customer (its node id) out of ``private`` or ``shared``."""

    customer: str
    pool: str
    prefix: int = 30


class ReleaseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A block, or the address of a node."""

    block: str | None = None
    node: str | None = None


def _require_operate(call: Call, node_id: str) -> None:
    if call.operator or call.caller is None:
        return
    question = Question(key=call.caller.key, action="operate", node_id=node_id)
    if not call.services.acl.check(question).allowed:
        raise NotFoundError(f"there is no node {node_id}")


async def _allocate(call: Call) -> Reply:
    body: AllocateRequest = call.body
    _require_operate(call, body.customer)
    return await call.services.ipam.allocate_block(
        customer=body.customer, pool=body.pool, prefix=body.prefix
    )


async def _release(call: Call) -> Reply:
    body: ReleaseRequest = call.body
    if body.block is not None:
        held = call.services.ledger.state.get("block", body.block)
        if held is None:
            raise NotFoundError("there is no such block")
        _require_operate(call, held["customer"])
        await call.services.ipam.release_block(body.block)
        return {"block": body.block}
    _require_operate(call, body.node or "")
    await call.services.ipam.release(body.node or "")
    return {"node": body.node}


async def _describe(call: Call) -> Reply:
    return call.services.ipam.describe()


ROUTES = (
    Route(
        method="POST",
        path="/api/ipam/allocate",
        handler=_allocate,
        summary="Allocate a block",
        access=Access.MEMBER,
        body=AllocateRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/ipam/release",
        handler=_release,
        summary="Release a block or a node's address",
        access=Access.MEMBER,
        body=ReleaseRequest,
    ),
    Route(
        method="GET",
        path="/api/ipam",
        handler=_describe,
        summary="This server's slices and how full they are",
        access=Access.OPERATOR,
    ),
)
