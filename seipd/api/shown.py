"""What this server shows an endpoint of its own record, at the join and later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from services.base.ledger.rootwalk import shown_chain
from services.kernel.errors import NotFoundError
from services.kernel.ids import ServerId, b64u_encode

if TYPE_CHECKING:
    from seipd.api.services import ApiServices


async def record_shown(services: ApiServices, node_id: str) -> dict[str, Any]:
    """Return the proof that the record by which an endpoint joined is in a log.

    Raises:
        NotFoundError: there is no such endpoint.
    """
    ledger = services.ledger
    node = ledger.state.get("tree", node_id)
    place = ledger.state.get("id", node["record"]) if node else None
    if node is None or node["kind"] != "endpoint" or place is None:
        raise NotFoundError(f"there is no endpoint {node_id}")
    server_id = ServerId(f"server-{place[0]}")
    proof = await asyncio.to_thread(ledger.log(server_id).tlog_proof, place[1])
    key = b64u_encode(ledger.charter.key_of(server_id) or b"")
    naming = next(
        record
        for record in reversed(ledger.charter.records[1:])
        if any(one["key"] == key for one in record.body["servers"])
    )
    return {
        "server_id": server_id,
        "proof": proof.decode("utf-8"),
        "certificate": naming.value(),
        "chain": [one.value() for one in shown_chain(ledger.charter)],
    }
