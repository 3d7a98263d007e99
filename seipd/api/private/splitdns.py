"""Which name servers a customer has for domains of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.routes import Access, Route
from services.authority.splitdns import view
from services.edge.resolver.routing import may_be_asked
from services.kernel.errors import InputError

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class SplitRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer by its name below the root, a domain, its name servers; an empty list ends it."""

    customer: str
    domain: str
    upstreams: list[str]


async def _list(call: Call) -> Reply:
    state = call.services.ledger.state

    held = state.scan(view.VIEW)

    def scan() -> list[dict[str, Any]]:
        rows = []
        for _, customer, _ in held:
            node = state.get("tree", customer)
            rows += [
                {"customer": node["name"], "node": customer, "domain": domain, **said}
                for domain, said in view.domains_of(state, customer).items()
            ]
        return sorted(rows, key=lambda row: (row["customer"], row["domain"]))

    return await asyncio.to_thread(scan)


async def _set(call: Call) -> Reply:
    body: SplitRequest = call.body
    domain = view.check_domain(body.domain.lower().removesuffix("."))
    for upstream in body.upstreams:
        _check_place(call, upstream)
    customer = call.services.enroll.customer_id(body.customer)
    said = {"customer": customer, "domain": domain, "upstreams": body.upstreams}
    record = call.services.author.record(view.KIND, said)
    (receipt,) = await call.services.ledger.submit([record])
    return {**said, "customer": body.customer, "node": customer, "record": receipt.record_id}


def _check_place(call: Call, upstream: str) -> None:
    host, _ = view.parse_upstream(upstream)
    ledger = call.services.ledger
    if not may_be_asked(host, mesh_id=ledger.mesh_id, ranges=ledger.charter.genesis.ranges):
        raise InputError(
            f"no server of the mesh asks {host}",
            code="bad_upstream",
            mend="name an address in the tunnel, or a public one",
        )


ROUTES = (
    Route(
        method="GET",
        path="/api/dns/split",
        handler=_list,
        summary="The customers' own domains and name servers",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/dns/split",
        handler=_set,
        summary="Name the name servers of a customer's domain",
        access=Access.OPERATOR,
        body=SplitRequest,
    ),
)
