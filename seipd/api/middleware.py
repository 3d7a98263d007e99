"""What every request passes: limits, rate, who is asking, and errors as problem documents."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from aiohttp import web

from seipd.api.errors import merge_headers, problem, problem_of
from seipd.api.origin import asker_of, origins_of
from seipd.api.routes import Access, Call, Route, parse_body, to_response
from services.authority.governance.parameters import CALLER_RATE, PUBLIC_RATE
from services.kernel.errors import (
    ForbiddenError,
    RateLimitedError,
    SeipdError,
    StorageError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
)
from services.runtime.ratelimit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.api.services import ApiServices
    from services.edge.auth.service import Caller

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
HANDLER_TIMEOUT_S = 30.0
SERVER_PER_MINUTE = 6_000


class Gate:
    """Turns rows of the route table into aiohttp handlers."""

    def __init__(self, services: ApiServices, *, operator: bool, tunnel_only: bool = False) -> None:
        self._services = services
        self._operator = operator
        self._tunnel_only = tunnel_only
        self._strangers = RateLimiter(per_minute=services.governance.number(PUBLIC_RATE))
        self._callers = RateLimiter(per_minute=services.governance.number(CALLER_RATE))
        # Another server that is far behind fetches bundles of 256 entries, one a request.
        self._servers = RateLimiter(per_minute=SERVER_PER_MINUTE)
        self.draining = False

    def wrap(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the aiohttp handler of a route."""

        async def handle(request: web.Request) -> web.StreamResponse:
            request_id = secrets.token_hex(8)
            headers = {"X-Request-Id": request_id}
            try:
                if self.draining:
                    raise UnavailableError("the server is stopping", code="not_ready")
                caller = self._caller(request, route)
                self._spend(request, caller, headers)
                self._check_access(route, caller)
                body = await self._body(request, route)
                call = Call(
                    request=request,
                    services=self._services,
                    caller=caller,
                    operator=self._operator,
                    body=body,
                )
                async with asyncio.timeout(HANDLER_TIMEOUT_S):
                    response = to_response(await route.handler(call), route.status)
            except SeipdError as error:
                response = problem_of(error, request_id=request_id)
            except TimeoutError:
                response = problem(503, "timeout", "it took too long", request_id=request_id)
            except OSError as error:
                # Out of file descriptors, or the disk is away: that passes, no fault of the caller.
                logger.warning("handler of %s: %s", route.path, error)
                away = StorageError("the server can't reach its files now", mend="try again later")
                response = problem_of(away, request_id=request_id)
            except web.HTTPException:
                raise
            except Exception:
                logger.exception("handler of %s failed", route.path)
                response = problem(500, "internal", "an error of ours", request_id=request_id)
            merge_headers(response, headers)
            return response

        return handle

    def _caller(self, request: web.Request, route: Route) -> Caller | None:
        if self._operator:
            return None
        values = request.headers.getall("Authorization", [])
        if not values:
            return None
        if route.access is Access.ANYONE:
            return None
        scheme, _, token = values[0].partition(" ")
        if len(values) > 1 or scheme != "Bearer" or not token:
            raise UnauthenticatedError("one header Authorization: Bearer TOKEN, please")
        caller = self._services.auth.caller(token)
        if self._tunnel_only:
            self._check_origin(caller, request.remote)
        return caller

    def _check_origin(self, caller: Caller, remote: str | None) -> None:
        # Before anything is counted: a thief must not use up the budget of the one it stole from.
        ledger = self._services.ledger
        origins = origins_of(
            caller, state=ledger.state, charter=ledger.charter, own_id=ledger.server_id
        )
        if remote not in origins:
            raise ForbiddenError(
                "this token is good from its own tunnel address alone",
                code="wrong_origin",
                mend="ask through the tunnel that belongs to the key",
            )

    def _spend(self, request: web.Request, caller: Caller | None, headers: dict[str, str]) -> None:
        if self._operator:
            return
        limiter = self._limiter(caller)
        key = asker_of(request.remote) if caller is None else caller.key.hex()
        spent = limiter.spend(key, now_s=self._services.clock.monotonic_s())
        headers["RateLimit-Limit"] = str(spent.limit)
        headers["RateLimit-Remaining"] = str(spent.remaining)
        headers["RateLimit-Reset"] = str(spent.reset_s)
        if not spent.allowed:
            raise RateLimitedError("too many requests", retry_after_s=max(spent.reset_s, 1))

    def _limiter(self, caller: Caller | None) -> RateLimiter:
        if caller is not None and caller.server_id is not None:
            return self._servers
        limiter = self._strangers if caller is None else self._callers
        rate = PUBLIC_RATE if caller is None else CALLER_RATE
        limiter.allow(self._services.governance.number(rate))
        return limiter

    def _check_access(self, route: Route, caller: Caller | None) -> None:
        if self._operator or route.access is Access.ANYONE:
            return
        if caller is None:
            raise UnauthenticatedError(
                "this needs a session token", mend="POST /api/auth/challenge gives the challenge"
            )
        if route.access is Access.OPERATOR:
            raise ForbiddenError("only on the server's own socket")
        if route.access is Access.SERVER and caller.server_id is None:
            raise ForbiddenError("only for servers of the mesh")

    async def _body(self, request: web.Request, route: Route) -> object:
        if route.body is None and not route.is_text:
            return None
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                data = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise TooLargeError(f"a body has at most {MAX_BODY_BYTES} bytes") from error
        except TimeoutError:
            raise UnavailableError("the body came too slowly", code="timeout") from None
        return data if route.body is None else parse_body(data, route.body)


@web.middleware
async def refuse_unknown(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer unknown paths and methods with problem documents, too."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return problem(404, "not_found", "there is nothing here")
    except web.HTTPMethodNotAllowed as error:
        response = problem(405, "method_not_allowed", f"{request.method} is not for this path")
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except web.HTTPException as error:
        return problem(error.status, "bad_request", error.reason)
