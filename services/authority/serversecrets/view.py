"""Secrets for servers as all see them: that there are such, and which version is the newest.

    secret/all           {names: [...]}
    secret/name/<name>   {at_ms, by, commitment, name, record, version}

Kinds: ``secret.set`` and ``secret.rm``, by a server of tier 1, which may have all of them anyway.
A version is one more than the last, so of two that are set at once one counts, the same everywhere.
Removed is forgotten; the next of that name is version 1 again, under another commitment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.serversecrets.messages import (
    MAX_SECRETS,
    REMOVE_KIND,
    SET_KIND,
    Meant,
    meant_in,
    removed_in,
)
from services.authority.trust.tiers import Right, may
from services.kernel.errors import RejectedError
from services.kernel.ids import b64u_decode, b64u_encode

if TYPE_CHECKING:
    from services.kernel.ids import ServerId
    from services.kernel.views import Appliers, FoldContext, StateReader

VIEW = "secret"


def names(state: StateReader) -> tuple[str, ...]:
    """Return the names of all secrets, in order."""
    found = state.get(VIEW, "all")
    return tuple(found["names"]) if found is not None else ()


def row_of(state: StateReader, name: str) -> dict[str, Any] | None:
    """Return what is public of a secret; None where there is none of that name."""
    found: dict[str, Any] | None = state.get(VIEW, f"name/{name}")
    return found


def meant_by(row: dict[str, Any]) -> Meant:
    """Return which value a row stands for."""
    return Meant(
        name=row["name"], version=row["version"], commitment=b64u_decode(row["commitment"])
    )


def _set(context: FoldContext, body: dict[str, Any]) -> None:
    meant, author = meant_in(body), _require_right(context)
    state, held = context.state, names(context.state)
    row = row_of(state, meant.name)
    if meant.version != (row["version"] if row is not None else 0) + 1:
        raise RejectedError(f"{meant.name} was set meanwhile", code="rejected_stale")
    if row is None and len(held) >= MAX_SECRETS:
        raise RejectedError(f"there are {MAX_SECRETS} secrets already", code="too_many")
    state.put(
        VIEW,
        f"name/{meant.name}",
        {
            "name": meant.name,
            "version": meant.version,
            "commitment": b64u_encode(meant.commitment),
            "by": author,
            "at_ms": context.stamp_ms,
            "record": context.record.id,
        },
    )
    state.put(VIEW, "all", {"names": sorted({*held, meant.name})})


def _remove(context: FoldContext, body: dict[str, Any]) -> None:
    (name, version), _ = removed_in(body), _require_right(context)
    row = row_of(context.state, name)
    if row is None or row["version"] != version:
        raise RejectedError(f"{name} has no version {version} now", code="rejected_stale")
    left = [one for one in names(context.state) if one != name]
    context.state.delete(VIEW, f"name/{name}")
    if left:
        context.state.put(VIEW, "all", {"names": left})
    else:
        context.state.delete(VIEW, "all")


def _require_right(context: FoldContext) -> ServerId:
    author = context.author
    if context.record.actor != author.key:
        raise RejectedError("a server speaks for itself", code="rejected_unauthorised")
    if not may(context.state, context.roster, author.server_id, Right.GET_SECRETS):
        raise RejectedError(f"{author.server_id} is not in tier 1", code="rejected_not_eligible")
    return author.server_id


APPLIERS: Appliers = {SET_KIND: _set, REMOVE_KIND: _remove}
