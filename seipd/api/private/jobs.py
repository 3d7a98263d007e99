"""Durable jobs: what waits, what failed and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from seipd.api.routes import Access, Route
from services.base.jobs.model import JobState, shown
from services.kernel.errors import InputError
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_PAGE: Final = 500
_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,15})-(job-[0-9a-f]{16})\Z")
_ID: Final = re.compile(r"job-[0-9a-f]{16}\Z")


async def _list(call: Call) -> Reply:
    state, kind = call.query("state"), call.query("kind")
    limit = parse_decimal(call.query("limit", "100"))
    if not 1 <= limit <= MAX_PAGE:
        raise InputError(f"limit is 1 to {MAX_PAGE}")
    if state and state not in {one.value for one in JobState}:
        raise InputError(f"state is one of {', '.join(one.value for one in JobState)}")
    found = await call.services.jobs.page(
        state=JobState(state) if state else None,
        kind=kind or None,
        before=_before(call.query("cursor")),
        limit=limit + 1,
    )
    page = found[:limit]
    last = page[-1] if len(found) > limit else None
    return {
        "jobs": [shown(one) for one in page],
        "cursor": f"{last.created_ms}-{last.id}" if last is not None else None,
    }


async def _show(call: Call) -> Reply:
    return shown(await call.services.jobs.get(_id(call)))


async def _retry(call: Call) -> Reply:
    return shown(await call.services.jobs.retry(_id(call)))


def _before(cursor: str) -> tuple[int, str] | None:
    if not cursor:
        return None
    match = _CURSOR.match(cursor)
    if match is None:
        raise InputError("cursor is none of ours")
    return int(match[1]), match[2]


def _id(call: Call) -> str:
    text = call.match("id")
    if not _ID.match(text):
        raise InputError(f"{text[:40]!r} is no job's id")
    return text


ROUTES = (
    Route(
        method="GET",
        path="/api/jobs",
        handler=_list,
        summary="Durable jobs, the newest first; by state and kind",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/jobs/{id}",
        handler=_show,
        summary="One job",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/jobs/{id}/retry",
        handler=_retry,
        summary="Let a dead letter begin anew, or a waiting job run at once",
        access=Access.OPERATOR,
    ),
)
