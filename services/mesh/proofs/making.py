"""What a server shows with a root, so that nobody need take its word for it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.kernel.ids import ServerId, b64u_encode
from services.mesh.proofs.shapes import object_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.base.ledger.roster import Charter
    from services.base.ledger.state import State
    from services.kernel.records import Record
    from services.mesh.facts.envelope import Fact


def naming_records(charter: Charter, number: int) -> list[Record]:
    """Return a roster change and those by which its witnesses have their keys, newest first."""
    missing = set(charter.witnesses_at(number))
    keys = {b64u_encode(charter.key_of(name) or b""): name for name in missing}
    found: list[Record] = []
    for record in reversed(charter.records[1 : number + 1]):
        named = {keys[one["key"]] for one in record.body["servers"] if one["key"] in keys}
        if not found or named & missing:
            found.append(record)
            missing -= named
        if not missing:
            break
    return found


def of_witnesses(charter: Charter, number: int, facts: Iterable[Fact]) -> list[bytes]:
    """Return the envelopes of facts by witnesses of a roster."""
    witnesses = charter.witnesses_at(number)
    return [fact.encoded for fact in facts if ServerId(fact.server_id) in witnesses]


def proofs_value(
    state: State,
    questions: Iterable[tuple[str, str]],
    *,
    chain: Sequence[Record],
    roster: Sequence[Record],
    envelopes: Iterable[bytes],
) -> dict[str, Any]:
    """Return proofs of objects of a state, with all that makes its root believable, as JSON."""
    return {
        "chain": [record.value() for record in chain],
        "roster": [record.value() for record in roster],
        "words": [b64u_encode(data) for data in envelopes],
        "objects": [object_value(view, key, *state.prove(view, key)) for view, key in questions],
    }
