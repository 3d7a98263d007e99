"""The roster as objects of the state.

roster/head          {hash, number}
roster/<server id>   the server's certificate
root/<generation>    {activated_ms, expires_ms, number, public_key, [closes_ms]}
root/recovery        {public_key}    the recovery key, once one was named
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from services.base.ledger.roster import Charter
    from services.base.ledger.state import State


def put_roster(state: State, charter: Charter, number: int) -> None:
    """Have the roster of a number in the state, and nothing of another."""
    text = charter.hash_at(number) or charter.head
    state.put("roster", "head", {"number": number, "hash": text})
    _put_root(state, charter, number)
    roster = charter.at(number)
    for server_id in charter.certificates():
        certificate = roster.server(server_id)
        if certificate is not None:
            state.put("roster", server_id, certificate.value())
        else:
            state.delete("roster", server_id)


def _put_root(state: State, charter: Charter, number: int) -> None:
    for one, after in zip_longest(charter.chain.generations, charter.chain.generations[1:]):
        if one.number > number:
            state.delete("root", str(one.generation))
            continue
        value: dict[str, Any] = {
            "public_key": b64u_encode(one.public_key),
            "number": one.number,
            "activated_ms": one.activated_ms,
            "expires_ms": one.expires_ms,
        }
        if after is not None and after.number <= number:
            value["closes_ms"] = one.closes_ms
        state.put("root", str(one.generation), value)
    if (key := charter.chain.recovery_key_at(number)) is not None:
        state.put("root", "recovery", {"public_key": b64u_encode(key)})
    else:
        state.delete("root", "recovery")
