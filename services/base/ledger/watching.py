"""Telling what changes in the state: each object once, with what it was before and is after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from services.base.ledger.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object of the state before and after."""

    view: str
    key: str
    old: Any
    new: Any


Subscriber = Callable[[list[Change]], None]


class StateWatch:
    """Gathers what changes, until it is told to those who asked for it."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[frozenset[str], Subscriber]] = []
        self._told_of: tuple[bytes, ...] = ()
        self._touched: dict[bytes, tuple[bytes | None, bytes | None]] = {}

    def subscribe(self, views: Sequence[str], subscriber: Subscriber) -> None:
        """Tell ``subscriber`` of every change in these views."""
        self._subscribers.append((frozenset(views), subscriber))
        self._told_of += tuple(f'["{view}",'.encode() for view in views)

    def begin(self, state: State) -> None:
        """Watch a state; nothing of before is told."""
        self._touched.clear()
        state.watch(self._note)

    @contextlib.contextmanager
    def away(self, state: State) -> Iterator[None]:
        """Look away while the state is taken back and made again as it was."""
        state.watch(None)
        try:
            yield
        finally:
            state.watch(self._note)

    def replaced(self, before: State, after: State) -> None:
        """Note what differs in another state, and watch that one."""
        before.watch(None)
        old = {place: payload for bucket in before.leaves() for place, payload in bucket}
        new = {place: payload for bucket in after.leaves() for place, payload in bucket}
        for place in old.keys() | new.keys():
            if old.get(place) != new.get(place):
                self._touched[place] = (old.get(place), new.get(place))
        after.watch(self._note)

    def tell(self) -> None:
        """Tell each subscriber what has changed since."""
        touched, self._touched = self._touched, {}
        changes = []
        for old, new in touched.values():
            # How a leaf begins says its view: what nobody asked for is not decoded.
            if old != new and (new or old or b"").startswith(self._told_of):
                view, key, _ = orjson.loads(new or old or b"null")
                old_value = orjson.loads(old)[2] if old else None
                new_value = orjson.loads(new)[2] if new else None
                changes.append(Change(view=view, key=key, old=old_value, new=new_value))
        for views, subscriber in self._subscribers if changes else ():
            wanted = [change for change in changes if change.view in views]
            if wanted:
                subscriber(wanted)

    def _note(self, place: bytes, old: bytes | None, new: bytes | None) -> None:
        first = self._touched.get(place)
        self._touched[place] = (old if first is None else first[0], new)
