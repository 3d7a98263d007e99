"""Name server slots: which server answers as ns1 to ns9.

    ns/<slot>      {server}

Kind: ``dns.claim`` {slot}, signed by the server on whose feed it stands, for itself. The first
claim in the order of the fold has the slot. A slot of a server that the claim's roster does not
name, or that is untrusted, is free again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.trust import view as trust_view
from services.kernel.errors import RejectedError

if TYPE_CHECKING:
    from services.kernel.ids import ServerId
    from services.kernel.views import Appliers, FoldContext, RosterReader, StateReader

VIEW = "ns"
CLAIM_KIND = "dns.claim"
SLOTS = range(1, 10)


def slots_held(state: StateReader, roster: RosterReader) -> dict[int, ServerId]:
    """Return who has which slot; those of servers removed or untrusted are left out."""
    held: dict[int, ServerId] = {}
    for slot in SLOTS:
        found = state.get(VIEW, str(slot))
        if found is None:
            continue
        holder = found["server"]
        if roster.server(holder) is None or state.get(trust_view.VIEW, holder) is not None:
            continue
        held[slot] = holder
    return held


def _claim(context: FoldContext, body: dict[str, Any]) -> None:
    slot = body.get("slot")
    if set(body) != {"slot"} or type(slot) is not int or slot not in SLOTS:
        raise RejectedError("a claim names one slot from 1 to 9", code="bad_slot")
    author = context.author
    if context.record.actor != author.key:
        raise RejectedError("a server claims for itself", code="rejected_unauthorised")
    held = slots_held(context.state, context.roster)
    if slot in held:
        raise RejectedError(f"ns{slot} is {held[slot]}", code="slot_taken")
    if author.server_id in held.values():
        raise RejectedError("a server has one slot", code="slot_held")
    context.state.put(VIEW, str(slot), {"server": author.server_id})


APPLIERS: Appliers = {CLAIM_KIND: _claim}
