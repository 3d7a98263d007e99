"""Certificates: of this server, and of endpoints by their own requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.kernel.errors import ForbiddenError, InputError, NotFoundError
from services.kernel.ids import b64u_decode, parse_domain

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class IssueRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name; an endpoint adds its certificate request, DER in base64url."""

    name: str
    request: str | None = None


async def _list(call: Call) -> Reply:
    return {"certificates": await call.services.acme.listed()}


async def _show(call: Call) -> Reply:
    name, acme = parse_domain(call.match("domain")), call.services.acme
    if call.operator:
        return await acme.shown(name)
    node_id = call.caller.node_id if call.caller is not None else None
    if node_id is None:
        raise NotFoundError(f"you have no certificate of {name}")
    return await acme.shown_to(node_id, name)


async def _issue(call: Call) -> Reply:
    body: IssueRequest = call.body
    name, acme = parse_domain(body.name), call.services.acme
    if body.request is None:
        if not call.operator:
            raise InputError("an endpoint sends its certificate request", code="bad_csr")
        await acme.issue_own(name)
        return await acme.shown(name)
    node_id = call.caller.node_id if call.caller is not None else None
    if node_id is None:
        raise ForbiddenError("an endpoint asks for itself", mend="seip cert issue, there")
    return await acme.issue_for(node_id, name, b64u_decode(body.request))


ROUTES = (
    Route(
        method="GET",
        path="/api/certs",
        handler=_list,
        summary="Certificates that this server has or ordered",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/certs/{domain}",
        handler=_show,
        summary="The certificate of a name, and how its order does",
        access=Access.MEMBER,
    ),
    Route(
        method="POST",
        path="/api/certs/issue",
        handler=_issue,
        summary="Order a certificate: for this server, or an endpoint's by its request",
        access=Access.MEMBER,
        body=IssueRequest,
        status=202,
    ),
)
