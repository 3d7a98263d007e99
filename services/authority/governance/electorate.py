"""Who is tier 1: who may propose and vote. Pure; the one place that says so.

Every server of the roster that a record is judged under, except those proved untrusted by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.authority.trust import view as trust_view

if TYPE_CHECKING:
    from services.kernel.ids import ServerId
    from services.kernel.views import RosterReader, StateReader


def is_tier1(state: StateReader, roster: RosterReader, server_id: ServerId) -> bool:
    """Say whether a server is in tier 1."""
    named = roster.server(server_id) is not None
    return named and state.get(trust_view.VIEW, server_id) is None


def tier1(state: StateReader, roster: RosterReader) -> frozenset[ServerId]:
    """Return the servers of tier 1."""
    return frozenset(one for one in roster.servers() if is_tier1(state, roster, one))
