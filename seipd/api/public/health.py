"""What anyone may know of a server: that it lives, what it counts, who the servers are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.api.routes import Access, Route, to_response
from services.base.ledger.rootwalk import shown_chain
from services.kernel.ids import b64u_encode
from services.kernel.service import HealthState

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


async def _health(call: Call) -> Reply:
    """Live if it answers; ready, which is 200, if no service is failed or starting."""
    status = call.services.mesh.status()
    states = {one["name"]: one["state"] for one in status["services"]}
    bad = {HealthState.FAILED.value, HealthState.STARTING.value}
    ready = not any(state in bad for state in states.values())
    said = {
        "status": "ok" if ready else "not_ready",
        "healthy": ready,
        "mesh_id": status["mesh_id"],
        "server_id": status["server_id"],
        "region": status["region"],
        "version": call.services.version,
        "insecure": status["insecure"],
    }
    return to_response(said, 200 if ready else 503)


async def _stats(call: Call) -> Reply:
    status = call.services.mesh.status()
    return {
        "records": status["records"],
        "servers": len(call.services.ledger.charter.servers()),
        "state_hash": status["state_hash"],
        "feeds": status["feeds"],
    }


async def _servers(call: Call) -> Reply:
    charter = call.services.ledger.charter
    known = {one["server_id"]: one for one in call.services.mesh.servers()}
    listed: list[dict[str, Any]] = [
        {
            "server_id": server_id,
            "region": one.region,
            "key": b64u_encode(one.key),
            "wireguard_key": b64u_encode(one.wireguard_key),
            "address": known.get(server_id, {}).get("address"),
            "address6": known.get(server_id, {}).get("address6"),
            "load": known.get(server_id, {}).get("load"),
        }
        for server_id, one in charter.servers().items()
    ]
    return {"servers": listed}


async def _tls_status(call: Call) -> Reply:
    """Everything a client needs to trust this server by the root alone."""
    services = call.services
    charter = services.ledger.charter
    own = services.ledger.server_id
    naming = next(
        record
        for record in reversed(charter.records[1:])
        if any(
            one.get("key") == b64u_encode(services.author.public_key)
            for one in record.body["servers"]
        )
    )
    return {
        "server_id": own,
        "authority_pem": services.tls.authority_pem.decode("ascii"),
        "genesis": charter.records[0].value(),
        "chain": [one.value() for one in shown_chain(charter)],
        "certificate": naming.value(),
        "mode": services.tls_mode,
    }


ROUTES = (
    Route(
        method="GET",
        path="/api/health",
        handler=_health,
        summary="Liveness and readiness",
        access=Access.ANYONE,
    ),
    Route(
        method="GET",
        path="/api/stats",
        handler=_stats,
        summary="Counters",
        access=Access.ANYONE,
    ),
    Route(
        method="GET",
        path="/api/servers",
        handler=_servers,
        summary="The servers of the mesh with region and keys",
        access=Access.ANYONE,
    ),
    Route(
        method="GET",
        path="/api/tls/status",
        handler=_tls_status,
        summary="The server's TLS authority and the root-signed record that pins it",
        access=Access.ANYONE,
    ),
)
