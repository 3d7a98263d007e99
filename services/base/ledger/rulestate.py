"""The state as a rule sees it while it is applied: what rules read again and again is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.base.ledger.state import State


class RuleState:
    """Satisfies StateWriter; only the fold makes one, in the thread that changes the state."""

    __slots__ = ("_state",)

    def __init__(self, state: State) -> None:
        self._state = state

    def get(self, view: str, key: str) -> Any:  # noqa: ANN401 (JSON)
        """Return the object, or None."""
        return self._state.recall(view, key)

    def put(self, view: str, key: str, value: Any) -> None:  # noqa: ANN401 (JSON)
        """Set an object; raises as ``State.put``."""
        self._state.put(view, key, value)

    def delete(self, view: str, key: str) -> None:
        """Remove an object; it need not exist."""
        self._state.delete(view, key)
