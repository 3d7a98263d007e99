"""The ledger from inside: append, read, prove, check, explain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from seipd.api.explain import explain_pair, explain_thing
from seipd.api.routes import Access, Route
from services.authority.policy.traffic import parse_traffic
from services.kernel.errors import InputError, NotFoundError
from services.kernel.ids import b64u_encode, parse_decimal, parse_record_id
from services.kernel.records import record_from_value

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_ENTRIES = 256
MAX_AUDIT_ENTRIES = 10_000


class AppendRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed record."""

    record: dict[str, Any]


async def _append(call: Call) -> Reply:
    body: AppendRequest = call.body
    (receipt,) = await call.services.ledger.submit([record_from_value(body.record)])
    return {"record_id": receipt.record_id, "index": receipt.index, "hlc": receipt.hlc}


def _server(call: Call) -> str:
    return call.request.match_info.get("server", call.services.ledger.server_id)


async def _entries(call: Call) -> Reply:
    log = call.services.ledger.log(_server(call))
    start = parse_decimal(call.query("start", "0"))
    limit = parse_decimal(call.query("limit", str(MAX_ENTRIES)))
    if not 1 <= limit <= MAX_ENTRIES:
        raise InputError(f"limit is 1 to {MAX_ENTRIES}")
    stop = min(start + limit, log.size)
    entries = await asyncio.to_thread(log.read, start, stop) if start < stop else []
    return {
        "server_id": _server(call),
        "size": log.size,
        "entries": [orjson.loads(entry) for entry in entries],
        "cursor": str(stop) if stop < log.size else None,
    }


async def _proof(call: Call) -> Reply:
    """Return a C2SP tlog-proof of one entry under the newest checkpoint."""
    log = call.services.ledger.log(_server(call))
    index = parse_decimal(call.query("index"))
    if index >= log.size:
        raise NotFoundError(f"the feed has {log.size} entries")
    text = await asyncio.to_thread(log.tlog_proof, index)
    return {"server_id": _server(call), "index": index, "proof": text.decode("utf-8")}


async def _record(call: Call) -> Reply:
    """Return where a record lies, and the record."""
    record_id = parse_record_id(call.match("id"))
    ledger = call.services.ledger
    place = ledger.state.get("id", record_id)
    if place is None:
        raise NotFoundError(f"no record {record_id} has effect here")
    server_id = f"server-{place[0]}"
    (entry,) = await asyncio.to_thread(ledger.log(server_id).read, place[1], place[1] + 1)
    return {"server_id": server_id, "index": place[1], "entry": orjson.loads(entry)}


async def _modules(call: Call) -> Reply:
    ledger = call.services.ledger
    return {
        "modules": [
            {
                "module": "feed" if name == ledger.server_id else f"feeds/{name}",
                "server_id": name,
                "epoch": head.epoch,
                "size": head.size,
                "root_hash": ledger.log(name).root_hex,
                "vkey": ledger.log(name).vkey,
            }
            for name, head in ledger.feeds().items()
        ]
    }


async def _checkpoint(call: Call) -> Reply:
    log = call.services.ledger.log(_server(call))
    return {"server_id": _server(call), "checkpoint": (log.checkpoint or b"").decode("utf-8")}


async def _verify(call: Call) -> Reply:
    """Check every log on the disk, tile by tile, and the state against a fold from the start."""
    await call.services.ledger.publish()
    logs = await asyncio.to_thread(call.services.ledger.verify_logs)
    logs += await call.services.audit.verify()
    return {"logs": logs, "state_hash": call.services.ledger.state.root().hex()}


async def _audit(call: Call) -> Reply:
    """Return the newest entries of the signer's audit, oldest first."""
    limit = parse_decimal(call.query("limit", "100"))
    if not 1 <= limit <= MAX_AUDIT_ENTRIES:
        raise InputError(f"limit is 1 to {MAX_AUDIT_ENTRIES}")
    seconds = call.query("seconds")
    return await call.services.audit.shown(
        seconds=parse_decimal(seconds) if seconds else None, limit=limit
    )


async def _anchors(call: Call) -> Reply:
    return {"anchors": call.services.audit.anchored()}


async def _map_proof(call: Call) -> Reply:
    state = call.services.ledger.state
    leaf, siblings = state.prove(call.match("view"), call.match("key"))
    return {
        "state_hash": state.root().hex(),
        "leaf": leaf.decode("utf-8") if leaf else None,
        "siblings": [b64u_encode(one) for one in siblings],
    }


async def _explain(call: Call) -> Reply:
    subject, other = call.query("subject"), call.query("other")
    if not subject:
        raise InputError("explain what? Give an address, a name, a key or two of them")
    if other:
        text = call.query("traffic")
        traffic = parse_traffic(text) if text else None
        return await explain_pair(call.services, subject, other, traffic)
    return await explain_thing(call.services, subject)


def _feed_routes(prefix: str) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=f"/ledger/{prefix}/entries",
            handler=_entries,
            summary="Entries of a feed, by pages",
            access=Access.OPERATOR,
        ),
        Route(
            method="GET",
            path=f"/ledger/{prefix}/proof",
            handler=_proof,
            summary="A C2SP tlog-proof of one entry",
            access=Access.OPERATOR,
        ),
        Route(
            method="GET",
            path=f"/ledger/{prefix}/newest",
            handler=_checkpoint,
            summary="The newest signed checkpoint, published or not",
            access=Access.OPERATOR,
        ),
    )


ROUTES = (
    Route(
        method="POST",
        path="/ledger/feed/append",
        handler=_append,
        summary="Append a signed record",
        access=Access.OPERATOR,
        body=AppendRequest,
        status=201,
    ),
    *_feed_routes("feed"),
    *_feed_routes("feeds/{server}"),
    Route(
        method="GET",
        path="/api/ledger/record/{id}",
        handler=_record,
        summary="One record and where it lies",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/ledger/modules",
        handler=_modules,
        summary="The logs held here",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/ledger/verify",
        handler=_verify,
        summary="Verify every log, tile by tile",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/ledger/audit",
        handler=_audit,
        summary="What the signer of this machine was asked, and how each call ended",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/ledger/audit/anchors",
        handler=_anchors,
        summary="What every server said in its feed that its signer's audit came to",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/map/{view}/{key:.+}",
        handler=_map_proof,
        summary="A proof that an object is, or is not, in the state",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/explain",
        handler=_explain,
        summary="Who holds something, since when, by which record; or whether A reaches B",
        access=Access.OPERATOR,
    ),
)
