"""The state of an agreed tick, kept apart from the one that goes on. Pure.

Proofs for clients are made from it: the map moves on, the root that the witnesses signed does not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from services.base.ledger.points import points_at
from services.base.ledger.ticks import word_of
from services.kernel.errors import UnavailableError

if TYPE_CHECKING:
    from services.base.ledger.fold import Fold
    from services.base.ledger.state import State
    from services.base.ledger.ticks import StateWord

KEPT: Final = 3


class AgreedStates:
    """The last few; one costs the list of its buckets, not its leaves."""

    def __init__(self) -> None:
        self._kept: OrderedDict[StateWord, State] = OrderedDict()

    def get(self, word: StateWord) -> State | None:
        """Return the state of a word if it was made before."""
        return self._kept.get(word)

    def make(self, fold: Fold, word: StateWord) -> State:
        """Return the state that a word is about.

        Raises:
            UnavailableError: ``no_agreed_state``: it is not remembered, or was another one here.
        """
        state = self._kept.get(word) or _frozen_as_of(fold, word)
        self._kept[word] = state
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return state


def _frozen_as_of(fold: Fold, word: StateWord) -> State:
    points = points_at(fold, word.time_ms)
    if points is not None and word.roster_number <= fold.charter.number:
        with fold.as_of(word.time_ms, word.roster_number):
            root, number = fold.state.root(), word.roster_number
            if word_of(fold.charter, word.time_ms, points, root, roster_number=number) == word:
                return fold.state.frozen()
    raise UnavailableError(
        "no state that the witnesses agree on is remembered here now",
        code="no_agreed_state",
        mend="try again in half a minute",
    )
