"""Where an endpoint tells that a server showed it something false: any server takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from seipd.api.routes import Access, Route
from services.kernel.errors import NotFoundError
from services.kernel.ids import node_id_of
from services.mesh.proofs.report import open_report

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

_Text = Annotated[str, msgspec.Meta(max_length=200)]


class ReportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an endpoint was shown that is false, signed by its identity key."""

    code: _Text
    key: _Text
    server: _Text
    subject: _Text
    time_ms: int
    what: _Text
    signature: _Text


async def _report(call: Call) -> Reply:
    services, body = call.services, msgspec.to_builtins(call.body)
    report = open_report(body, services.ledger.mesh_id, now_ms=services.clock.now_ms())
    node = services.ledger.state.get("tree", node_id_of(report.key))
    if node is None or node["kind"] != "endpoint":
        raise NotFoundError("no endpoint has this key")
    services.reports.add(report)
    return {"counted": True}


ROUTES = (
    Route(
        method="POST",
        path="/api/mesh/report",
        handler=_report,
        summary="An endpoint tells, signed, of something false that a server showed it",
        access=Access.ANYONE,
        body=ReportRequest,
        status=201,
    ),
)
