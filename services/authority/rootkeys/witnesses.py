"""Who should be a witness. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.changes import MAX_WITNESSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.kernel.ids import ServerId


def choose_witnesses(named: Iterable[ServerId], servers: Sequence[ServerId]) -> list[ServerId]:
    """Return the witnesses of a roster: an odd number, as many as there are servers, up to nine.

    Whoever is a witness and still a server stays one; the longest-standing servers follow. So two
    servers have one witness, since with two no majority would survive the loss of either.

    Args:
        named: the witnesses so far.
        servers: the servers of the new roster, in the order in which they joined; at least one.
    """
    odd = len(servers) - (len(servers) + 1) % 2
    staying = [one for one in named if one in servers]
    others = [one for one in servers if one not in staying]
    return (staying + others)[: min(odd, MAX_WITNESSES)]
