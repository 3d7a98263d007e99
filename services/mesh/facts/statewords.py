"""What servers say of the state, out of the envelopes in which it came. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.ticks import StateWord, decode_word
from services.kernel.errors import SeipdError
from services.kernel.ids import ServerId
from services.mesh.facts.envelope import open_envelope
from services.mesh.facts.kinds import STATE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.kernel.ids import MeshId


def words_of(envelopes: Iterable[bytes], mesh_id: MeshId) -> dict[ServerId, StateWord]:
    """Return the word of each server whose envelope is well signed; the rest counts for nothing."""
    words = {}
    for data in envelopes:
        try:
            fact = open_envelope(data, bytes.fromhex(mesh_id))
            if fact.kind == STATE:
                words[ServerId(fact.server_id)] = decode_word(fact.payload)
        except SeipdError:
            continue
    return words
