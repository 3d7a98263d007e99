"""Who may propose and vote, hold shares and recover: tier 1. Pure; asked wherever that matters.

A function of records alone, under the roster that a record is judged under; see trust's tiers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.authority.trust.tiers import Right, may

if TYPE_CHECKING:
    from services.kernel.ids import ServerId
    from services.kernel.views import RosterReader, StateReader


def is_tier1(state: StateReader, roster: RosterReader, server_id: ServerId) -> bool:
    """Say whether a server is in tier 1."""
    return may(state, roster, server_id, Right.VOTE)


def tier1(state: StateReader, roster: RosterReader) -> frozenset[ServerId]:
    """Return the servers of tier 1."""
    return frozenset(one for one in roster.servers() if is_tier1(state, roster, one))
