"""A route is a row of a table: the router, the checks and the OpenAPI document all read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from services.kernel import canonical
from services.kernel.errors import InputError

if TYPE_CHECKING:
    from seipd.api.services import ApiServices
    from services.edge.auth.service import Caller


class Access(Enum):
    """Who may call a route."""

    ANYONE = "anyone"
    MEMBER = "member"
    SERVER = "server"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, checked: its body typed, its caller proven."""

    request: web.Request
    services: ApiServices
    caller: Caller | None
    operator: bool
    body: Any

    def match(self, name: str) -> str:
        """Return a part of the path."""
        return self.request.match_info[name]

    def query(self, name: str, default: str = "") -> str:
        """Return a parameter of the query, given once at most.

        Raises:
            InputError: given twice.
        """
        values = self.request.query.getall(name, [])
        if len(values) > 1:
            raise InputError(f"{name} is given twice")
        return values[0] if values else default


Reply = dict[str, Any] | list[Any] | web.StreamResponse
Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Method, path, who may, what it takes, what it does.

    ``is_text``: the body is given to the handler as the bytes that came.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access
    body: type[msgspec.Struct] | None = None
    is_text: bool = False
    status: int = 200


def to_response(reply: Reply, status: int) -> web.StreamResponse:
    """Return what a handler answered as a response."""
    if isinstance(reply, web.StreamResponse):
        return reply
    return web.Response(
        status=status, body=canonical.encode(reply), content_type="application/json"
    )


def parse_body(data: bytes, kind: type[msgspec.Struct]) -> Any:  # noqa: ANN401 (an instance of kind)
    """Parse a request body into its type; unknown fields are refused.

    Raises:
        BadJsonError: not JSON within the limits.
        InputError: ``bad_field``.
    """
    value = canonical.decode_object(data)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InputError(str(error)) from error
