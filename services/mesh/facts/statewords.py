"""What servers say of the state, out of the envelopes in which it came. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.base.ledger.ticks import StateWord, agreed_word, decode_word
from services.kernel.errors import SeipdError, WireError
from services.kernel.ids import ServerId
from services.mesh.facts.envelope import open_envelope
from services.mesh.facts.kinds import STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.base.ledger.roster import Charter
    from services.kernel.ids import MeshId
    from services.mesh.facts.envelope import Fact

KEPT_TICKS: Final = 32
"""Of a busy minute, in which there are quick ticks beside the others."""


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


class WordKeeper:
    """The words of the last ticks: a newer tick is not agreed on at once, the one before still is.

    What it learns was checked by the fact book: well signed, of a server of the roster. The last
    few words of each witness are kept, so that one that says much pushes out its own alone.
    """

    def __init__(self, charter_of: Callable[[], Charter]) -> None:
        self._charter_of = charter_of
        self._told: dict[ServerId, dict[int, tuple[StateWord, bytes]]] = {}
        self.refused_count = 0
        """How many words came from servers that are no witnesses of the roster they name."""

    def learn(self, fact: Fact) -> None:
        """Take a fact; one that is no word on the state is left alone."""
        if fact.kind != STATE:
            return
        try:
            word = decode_word(fact.payload)
        except WireError:
            return
        name, charter = ServerId(fact.server_id), self._charter_of()
        is_known = charter.hash_at(word.roster_number) == word.roster_hash.hex()
        if not is_known or name not in charter.witnesses_at(word.roster_number):
            self.refused_count += 1
            return
        told = self._told.setdefault(name, {})
        told[word.time_ms] = (word, fact.encoded)
        while len(told) > KEPT_TICKS:
            del told[min(told)]

    def agreed(self) -> tuple[StateWord, list[bytes]] | None:
        """Return the newest word that the witnesses agree on, and the envelopes that say so."""
        ticks = {tick_ms for told in self._told.values() for tick_ms in told}
        for tick_ms in sorted(ticks, reverse=True):
            said = {name: told[tick_ms] for name, told in self._told.items() if tick_ms in told}
            word = agreed_word(self._charter_of(), {name: one for name, (one, _) in said.items()})
            if word is not None:
                return word, [data for one, data in said.values() if one == word]
        return None
