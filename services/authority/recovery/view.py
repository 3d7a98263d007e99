"""Recovery: which dealing is in force, who said what of its share, and what was released to whom.

    recovery/head                    {before, in_force, newest}      numbers, 0 for none
    recovery/dealing/<number>        the body of its root.shares
    recovery/standing/<number>       {bad: {index: verdict}, good: [indexes], have, record}
    recovery/share/<number>/<index>  {commitment, sealed}
    recovery/request/<server id>     the body of its root.recovery, {record}, {released: [indexes]}
    recovery/release/<server id>/<index>   {sealed}

Kinds: ``root.shares`` and ``root.share_part`` by the root; ``root.share_ack``, ``root.recovery``
and ``root.release`` by a server, for itself. A dealing is in force once as many holders as are
needed said that their share is good, an offline file at once. Then the root names its key in the
chain of root keys, and should it be lost before it can, the dealing before serves still: that one
is forgotten when the next begins. Who complained is named. Whom it is dealt to is not the root's to
choose: all of tier 1 where the record stands, and a file only while that is under four.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.governance import parameters
from services.authority.governance.electorate import is_tier1, tier1
from services.authority.recovery.messages import (
    ACK_KIND,
    GOOD,
    MIN_HOLDERS,
    PART_KIND,
    RELEASE_KIND,
    REQUEST_KIND,
    SHARES_KIND,
    Head,
    ack_from_body,
    head_from_body,
    part_from_body,
    release_from_body,
    request_from_body,
)
from services.base.crypto.shamir import MAX_SHARES
from services.base.signing.dealing import dealing_context, key_vouches
from services.kernel.errors import RejectedError

if TYPE_CHECKING:
    from services.kernel.ids import MeshId, ServerId
    from services.kernel.views import Appliers, FoldContext, RosterReader, StateReader, StateWriter

VIEW = "recovery"
MIN_THRESHOLD = 2


def numbers(state: StateReader) -> tuple[int, int]:
    """Return the numbers of the dealing in force and of the newest; 0 for none."""
    found = _head(state)
    return found["in_force"], found["newest"]


def usable(state: StateReader) -> tuple[int, ...]:
    """Return the dealings whose shares may be released: the one in force, and the one before."""
    found = _head(state)
    return tuple(one for one in (found["in_force"], found["before"]) if one)


def head_of(state: StateReader, number: int) -> Head | None:
    """Return a dealing that is in force or under way."""
    found = state.get(VIEW, f"dealing/{number}")
    return head_from_body(found) if found is not None else None


def standing_of(state: StateReader, number: int) -> dict[str, Any]:
    """Return what is known of a dealing's shares."""
    found = state.get(VIEW, f"standing/{number}")
    return found if found is not None else {"have": 0, "good": [], "bad": {}, "record": ""}


def wanted_holders(state: StateReader, roster: RosterReader) -> tuple[ServerId, ...]:
    """Return who should hold shares: tier 1 in ascending order; nobody while it is too small.

    The field has 255 places: of a larger tier 1 the first so many hold shares.
    """
    holders = tuple(sorted(tier1(state, roster)))[:MAX_SHARES]
    return holders if len(holders) >= MIN_HOLDERS else ()


def threshold_of(state: StateReader, count: int) -> int:
    """Return how many of so many holders bring a lost root back: the quorum, rounded up."""
    percent = parameters.number(state, parameters.SHARE_QUORUM)
    return max(MIN_THRESHOLD, -(-percent * count // 100))


def context_of(head: Head, roster: RosterReader, mesh_id: MeshId) -> bytes:
    """Return the name of a dealing.

    Raises:
        RejectedError: ``bad_holders``: one is no server.
    """
    keys = []
    for holder in head.holders:
        certificate = roster.server(holder)
        if certificate is None:
            raise RejectedError(f"{holder} is no server", code="bad_holders")
        keys.append(certificate.key)
    return dealing_context(mesh_id, head.number, head.recovery_key, head.threshold, keys)


def _shares(context: FoldContext, body: dict[str, Any]) -> None:
    if context.record.actor not in context.root_keys:
        raise RejectedError("the root deals shares", code="rejected_unauthorised")
    head, state = head_from_body(body), context.state
    known = _head(state)
    in_force, newest = known["in_force"], known["newest"]
    if head.number != newest + 1:
        raise RejectedError(f"the next dealing is {newest + 1}", code="stale_dealing")
    name = context_of(head, context.roster, context.mesh_id)
    if head.holders != wanted_holders(state, context.roster):
        raise RejectedError("shares are for all of tier 1, and no others", code="bad_holders")
    wanted = 0 if head.is_offline else threshold_of(state, len(head.holders))
    if head.threshold != wanted:
        raise RejectedError(f"{wanted} holders have to be needed", code="bad_threshold")
    if not key_vouches(head.recovery_key, name, head.signature):
        raise RejectedError("the recovery key did not sign", code="sig_invalid")
    for number in {newest, known["before"]} - {in_force, 0}:
        _forget(state, number)
    state.put(VIEW, f"dealing/{head.number}", body)
    standing = {"have": 0, "good": [], "bad": {}, "record": context.record.id}
    state.put(VIEW, f"standing/{head.number}", standing)
    state.put(VIEW, "head", {"before": 0, "in_force": in_force, "newest": head.number})
    if head.is_offline:
        _bring_into_force(state, head.number)


def _part(context: FoldContext, body: dict[str, Any]) -> None:
    if context.record.actor not in context.root_keys:
        raise RejectedError("the root deals shares", code="rejected_unauthorised")
    number, first, shares = part_from_body(body)
    head = _under_way(context.state, number)
    standing = standing_of(context.state, number)
    last = first + len(shares) - 1
    if first != standing["have"] + 1 or last > len(head.holders):
        raise RejectedError(f"share {standing['have'] + 1} is the next", code="bad_part")
    for index, share in enumerate(shares, first):
        context.state.put(VIEW, f"share/{number}/{index}", share.value())
    context.state.put(VIEW, f"standing/{number}", {**standing, "have": last})


def _ack(context: FoldContext, body: dict[str, Any]) -> None:
    number, verdict = ack_from_body(body)
    head = _under_way(context.state, number)
    index = _own_index(context, head)
    standing = standing_of(context.state, number)
    if standing["have"] < len(head.holders):
        raise RejectedError("shares are missing still", code="bad_part")
    if index in standing["good"] or str(index) in standing["bad"]:
        raise RejectedError("this holder has spoken", code="already_told")
    if verdict == GOOD:
        standing = {**standing, "good": sorted([*standing["good"], index])}
    else:
        standing = {**standing, "bad": {**standing["bad"], str(index): verdict}}
    context.state.put(VIEW, f"standing/{number}", standing)
    if len(standing["good"]) >= head.threshold and numbers(context.state)[0] != number:
        _bring_into_force(context.state, number)


def _request(context: FoldContext, body: dict[str, Any]) -> None:
    author = _own(context)
    request = request_from_body(body)
    if not is_tier1(context.state, context.roster, author):
        raise RejectedError("a server of tier 1 recovers the root", code="rejected_unauthorised")
    head = _usable(context.state, request.number)
    if request.root_key in context.root_keys:
        raise RejectedError("this root key is in force", code="bad_claim")
    for index in range(1, len(head.holders) + 1):
        context.state.delete(VIEW, f"release/{author}/{index}")
    value = {**body, "record": context.record.id, "released": []}
    context.state.put(VIEW, f"request/{author}", value)


def _release(context: FoldContext, body: dict[str, Any]) -> None:
    server, record_id, _ = release_from_body(body)
    request = context.state.get(VIEW, f"request/{server}")
    if request is None or request["record"] != record_id:
        raise RejectedError(f"{server} asks for no such thing now", code="unknown_request")
    index = _own_index(context, _usable(context.state, request["number"]))
    if index in request["released"]:
        raise RejectedError("this holder released its share", code="duplicate_share")
    context.state.put(VIEW, f"release/{server}/{index}", {"sealed": body["sealed"]})
    released = sorted([*request["released"], index])
    context.state.put(VIEW, f"request/{server}", {**request, "released": released})


def _own(context: FoldContext) -> ServerId:
    if context.record.actor != context.author.key:
        raise RejectedError("a server speaks for itself", code="rejected_unauthorised")
    return context.author.server_id


def _own_index(context: FoldContext, head: Head) -> int:
    own = _own(context)
    if own not in head.holders:
        raise RejectedError(f"{own} holds no share of dealing {head.number}", code="no_holder")
    return head.holders.index(own) + 1


def _under_way(state: StateReader, number: int) -> Head:
    head = head_of(state, number) if number == numbers(state)[1] else None
    if head is None:
        raise RejectedError("this is not the newest dealing", code="stale_dealing")
    return head


def _usable(state: StateReader, number: int) -> Head:
    head = head_of(state, number) if number in usable(state) else None
    if head is None:
        raise RejectedError("this dealing is not in force", code="stale_dealing")
    return head


def _head(state: StateReader) -> dict[str, int]:
    found: dict[str, int] | None = state.get(VIEW, "head")
    return found if found is not None else {"before": 0, "in_force": 0, "newest": 0}


def _bring_into_force(state: StateWriter, number: int) -> None:
    before, newest = numbers(state)
    state.put(VIEW, "head", {"before": before, "in_force": number, "newest": newest})


def _forget(state: StateWriter, number: int) -> None:
    head = head_of(state, number)
    for index in range(1, len(head.holders if head else ()) + 1):
        state.delete(VIEW, f"share/{number}/{index}")
    state.delete(VIEW, f"standing/{number}")
    state.delete(VIEW, f"dealing/{number}")


APPLIERS: Appliers = {
    SHARES_KIND: _shares,
    PART_KIND: _part,
    ACK_KIND: _ack,
    REQUEST_KIND: _request,
    RELEASE_KIND: _release,
}
