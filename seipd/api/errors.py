"""Errors as HTTP says them: RFC 9457 problem documents, one table from category to status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from services.kernel import canonical
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    RateLimitedError,
    RejectedError,
    SeipdError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    WireError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS: tuple[tuple[type[SeipdError], int], ...] = (
    (TooLargeError, 413),
    (InputError, 400),
    (WireError, 400),
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (RejectedError, 422),
    (RateLimitedError, 429),
    (UnavailableError, 503),
)
_BY_CODE = {
    "rejected_unauthorised": 403,
    "token_invalid": 401,
    "token_used": 409,
    "key_in_use": 409,
    "name_in_use": 409,
    "duplicate_id": 409,
    "already_untrusted": 409,
    "already_voted": 409,
    "stale_value": 409,
    "voting_expired": 409,
    "voting_over": 409,
    "rejected_orphan": 404,
}


def status_of(error: SeipdError) -> int:
    """Return the HTTP status of an error."""
    for category, status in _STATUS:
        if isinstance(error, category):
            return _BY_CODE.get(error.code, status) if status in (400, 422) else status
    return 500


def problem(
    status: int, code: str, detail: str, *, mend: str = "", request_id: str = ""
) -> web.Response:
    """Return a problem document."""
    value: dict[str, object] = {"type": "about:blank", "status": status, "code": code}
    value["title"] = code.replace("_", " ")
    value["detail"] = detail
    if mend:
        value["mend"] = mend
    if request_id:
        value["request_id"] = request_id
    return web.Response(
        status=status,
        body=canonical.encode(value),
        content_type="application/problem+json",
    )


def problem_of(error: SeipdError, *, request_id: str) -> web.Response:
    """Return the problem document of an error of ours."""
    status = status_of(error)
    response = problem(status, error.code, str(error), mend=error.mend, request_id=request_id)
    if isinstance(error, RateLimitedError):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def merge_headers(response: web.StreamResponse, headers: Mapping[str, str]) -> None:
    """Add headers to a response that has not been sent."""
    for name, value in headers.items():
        response.headers[name] = value
