"""What an operator or a program inside the mesh asks about this server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from seipd.api.metrics import render_metrics
from seipd.api.routes import Access, Route

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


async def _status(call: Call) -> Reply:
    return call.services.mesh.status()


async def _servers(call: Call) -> Reply:
    return {"servers": call.services.mesh.servers()}


async def _peers(call: Call) -> Reply:
    return {"peers": await call.services.mesh.peers()}


async def _doctor(call: Call) -> Reply:
    reported = [
        {
            "level": "warning",
            "what": f"endpoint {one['by']} says that {one['server_id']} showed it something false:"
            f" {one['what']}",
            "mend": "look at that server; if it lies, seipd server revoke ends it",
        }
        for one in call.services.reports.values()
    ]
    mesh = call.services.mesh
    return {"findings": [*await mesh.doctor(), *reported], "nat": await mesh.nat()}


async def _metrics(call: Call) -> Reply:
    return web.Response(
        body=render_metrics(call.services),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


ROUTES = (
    Route(
        method="GET",
        path="/api/status",
        handler=_status,
        summary="What is up",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/peers",
        handler=_peers,
        summary="WireGuard peers of this server",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/servers/known",
        handler=_servers,
        summary="Servers known by gossip",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/doctor",
        handler=_doctor,
        summary="What is wrong and how to mend it",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=_metrics,
        summary="Prometheus metrics",
        access=Access.MEMBER,
    ),
)
