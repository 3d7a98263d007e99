"""What the signers' audits came to, told by the server beside each: in the feeds, where all see it.

    audit/<server id>   {logs: [{at_ms, key, month, record, root, size}, ...]}

Kind: ``audit.anchor`` {key, month, root, size}, by a server on its own feed: the audit log of that
month, signed by that key, has ``size`` entries with that root. Of one key a later word names more
entries, or a later month: what was said once can't be said smaller. The log that was spoken of last
stands last; of more than eight the oldest is forgotten here, and stays in the feed. So whoever is
root on a server's machine, and writes both the signer's folder and the daemon's anew, contradicts
what every other server holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.authority.trust.tiers import Right, may
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import parse_key

if TYPE_CHECKING:
    from services.kernel.ids import ServerId
    from services.kernel.views import FoldContext, StateReader

ANCHOR_KIND: Final = "audit.anchor"
VIEW: Final = "audit"
MAX_LOGS: Final = 8
MONTH_PATTERN: Final = r"\A[0-9]{4}-(0[1-9]|1[0-2])\Z"

_Month = Annotated[str, msgspec.Meta(pattern=MONTH_PATTERN)]
_Root = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Size = Annotated[int, msgspec.Meta(ge=1, lt=1 << 40)]


class _AnchorWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    month: _Month
    root: _Root
    size: _Size


def anchored_of(state: StateReader, server_id: ServerId) -> list[dict[str, Any]]:
    """Return what a server said of the audits of its signers, the newest last."""
    held = state.get(VIEW, server_id)
    return list(held["logs"]) if held is not None else []


def anchor(context: FoldContext, body: dict[str, Any]) -> None:
    """Take a server's word on its signer's audit into the state.

    Raises:
        InputError: malformed.
        RejectedError: ``rejected_unauthorised``, ``rejected_stale`` or ``no_change``.
    """
    wire, author = _parsed(body), _require_server(context)
    logs = anchored_of(context.state, author)
    before = next((one for one in logs if one["key"] == wire.key), None)
    if before is not None:
        _require_further(wire, before)
    said = {
        "at_ms": context.stamp_ms,
        "key": wire.key,
        "month": wire.month,
        "record": context.record.id,
        "root": wire.root,
        "size": wire.size,
    }
    others = [one for one in logs if one["key"] != wire.key]
    context.state.put(VIEW, author, {"logs": [*others, said][-MAX_LOGS:]})


def _parsed(body: dict[str, Any]) -> _AnchorWire:
    try:
        wire = msgspec.convert(body, _AnchorWire)
    except msgspec.ValidationError as error:
        raise InputError(f"{ANCHOR_KIND}: {error}") from error
    parse_key(wire.key)
    return wire


def _require_server(context: FoldContext) -> ServerId:
    author = context.author
    if context.record.actor != author.key:
        raise RejectedError(
            "a server speaks for itself, on its own feed", code="rejected_unauthorised"
        )
    if not may(context.state, context.roster, author.server_id, Right.WRITE):
        raise RejectedError(f"{author.server_id} is untrusted", code="rejected_unauthorised")
    return author.server_id


def _require_further(wire: _AnchorWire, before: dict[str, Any]) -> None:
    said, now = (before["month"], before["size"]), (wire.month, wire.size)
    if said == now and before["root"] == wire.root:
        raise RejectedError("this was said", code="no_change")
    if now <= said:
        raise RejectedError(
            f"{before['size']} entries of {before['month']} were anchored already",
            code="rejected_stale",
        )
