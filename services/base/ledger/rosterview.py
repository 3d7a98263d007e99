"""The roster as objects of the state.

roster/head          {hash, number}
roster/<server id>   the server's certificate
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.base.ledger.roster import Charter
    from services.base.ledger.state import State


def put_roster(state: State, charter: Charter, number: int) -> None:
    """Have the roster of a number in the state, and nothing of another."""
    text = charter.hash_at(number) or charter.head
    state.put("roster", "head", {"number": number, "hash": text})
    roster = charter.at(number)
    for server_id in charter.certificates():
        certificate = roster.server(server_id)
        if certificate is not None:
            state.put("roster", server_id, certificate.value())
        else:
            state.delete("roster", server_id)
