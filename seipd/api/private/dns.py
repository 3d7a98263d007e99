"""An operator's records in the mesh's zone."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.routes import Access, Route
from services.authority.dnskeys import view as dnskeys_view
from services.authority.dnsnames import view
from services.kernel.dnsnames import text_of
from services.kernel.dnssec import ED25519, ENTRY_POINT_FLAG, SHA_256, ZONE_FLAG, key_tag
from services.kernel.errors import NotFoundError
from services.kernel.ids import parse_key

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

DEFAULT_TTL_S = 300
DS_TTL_S = 3600


class SetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The records of one type at a name: full, or below the mesh's domain; ``@`` is the domain."""

    name: str
    type: str
    values: list[str]
    ttl: int = DEFAULT_TTL_S


class RemoveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name, and the type whose records go; all of them where none is named."""

    name: str
    type: str | None = None


async def _list(call: Call) -> Reply:
    held = call.services.ledger.state.scan(view.VIEW)

    def scan() -> list[dict[str, Any]]:
        rows = [
            {"name": name, "type": rtype, **said}
            for _, name, sets in held
            for rtype, said in sets.items()
        ]
        return sorted(rows, key=lambda row: (row["name"], row["type"]))

    return await asyncio.to_thread(scan)


async def _set(call: Call) -> Reply:
    body: SetRequest = call.body
    name = view.full_name(body.name, view.domain_of(call.services.ledger.state))
    said = {"name": name, "type": body.type.upper(), "ttl": body.ttl, "values": body.values}
    record = call.services.author.record(view.SET_KIND, said)
    (receipt,) = await call.services.ledger.submit([record])
    return {**said, "record": receipt.record_id}


async def _remove(call: Call) -> Reply:
    body: RemoveRequest = call.body
    state = call.services.ledger.state
    name = view.full_name(body.name, view.domain_of(state))
    held = state.get(view.VIEW, name) or {}
    types = sorted(held) if body.type is None else [body.type.upper()]
    if not types or not held.keys() >= set(types):
        raise NotFoundError(f"there is no such record at {name}", mend="seipd dns ls shows them")
    records = [
        call.services.author.record(view.RM_KIND, {"name": name, "type": one}) for one in types
    ]
    receipts = await call.services.ledger.submit(records)
    return {"name": name, "types": types, "records": [one.record_id for one in receipts]}


async def _ds(call: Call) -> Reply:
    state = call.services.ledger.state
    keys = dnskeys_view.keys_in_force(state)
    if keys is None:
        raise NotFoundError(
            "the zone is not signed",
            code="not_signed",
            mend="seipd status says of dns-keys why; the server that holds the root signs it",
        )
    apex = dnskeys_view.apex_of(state)
    tag, digest = key_tag(keys.entry_point), dnskeys_view.ds_of(keys, apex)[4:].hex().upper()
    head = f"{text_of(apex)}. {DS_TTL_S} IN"
    ksk = b64encode(parse_key(keys.ksk)).decode("ascii")
    return {
        "ds": f"{head} DS {tag} {ED25519} {SHA_256} {digest}",
        "dnskey": f"{head} DNSKEY {ZONE_FLAG | ENTRY_POINT_FLAG} 3 {ED25519} {ksk}",
        "key_tag": tag,
        "name_servers": len(keys.zsks),
        "signed_until_s": keys.expiration,
    }


async def _rekey(call: Call) -> Reply:
    await call.services.zone_keys.rekey()
    return await _ds(call)


ROUTES = (
    Route(
        method="GET",
        path="/api/dns/ds",
        handler=_ds,
        summary="The DS record for the parent of the mesh's zone",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/dns/rekey",
        handler=_rekey,
        summary="Begin with another entry point for the zone's keys: the one before is lost",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/dns/records",
        handler=_list,
        summary="The operator's DNS records",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/dns/set",
        handler=_set,
        summary="Set the records of one type at a name",
        access=Access.OPERATOR,
        body=SetRequest,
    ),
    Route(
        method="POST",
        path="/api/dns/remove",
        handler=_remove,
        summary="Remove the records of a name",
        access=Access.OPERATOR,
        body=RemoveRequest,
    ),
)
