"""Maps and sets of nftables as they should be, and what has to be said to get there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SET: Final = ""
"""The value of what is in a set, not in a map."""


class Elements:
    """The elements of some maps and sets, by name and key; notes what changes."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """``names`` tells for each map or set how it is declared."""
        self._declared = dict(names)
        self._held: dict[str, dict[str, str]] = {name: {} for name in names}
        self._before: dict[tuple[str, str], str | None] = {}

    def get(self, name: str, key: str) -> str | None:
        """Return a value, or None."""
        return self._held[name].get(key)

    def count(self, name: str) -> int:
        """Return how many there are of a name."""
        return len(self._held[name])

    def put(self, name: str, key: str, value: str = SET) -> None:
        """Have this element."""
        held = self._held[name]
        self._before.setdefault((name, key), held.get(key))
        held[key] = value

    def drop(self, name: str, key: str) -> None:
        """Have it no more; it need not be there."""
        held = self._held[name]
        if key in held:
            self._before.setdefault((name, key), held[key])
            del held[key]

    def held(self) -> dict[str, dict[str, str]]:
        """Return a copy of all of it."""
        return {name: dict(held) for name, held in self._held.items()}

    def declared(self) -> str:
        """Return all maps and sets with their elements, as they stand in a table's block."""
        self._before.clear()
        return "".join(
            f"{_kind(self._declared[name])} {name} {{\n{self._declared[name]}"
            f"{_listed('elements = ', held)}}}\n"
            for name, held in self._held.items()
        )

    def take_changes(self, table: str) -> tuple[str, int]:
        """Return the commands that lead from what was taken before to here, and how many elements.

        What goes is said before what comes: an interval may take the place of two others.
        """
        gone: dict[str, dict[str, str]] = {}
        come: dict[str, dict[str, str]] = {}
        for (name, key), before in self._before.items():
            now = self._held[name].get(key)
            if now == before:
                continue
            if before is not None:
                # Elements are found by their key alone.
                gone.setdefault(name, {})[key] = SET
            if now is not None:
                come.setdefault(name, {})[key] = now
        self._before.clear()
        lines = [_command("delete", table, name, elements) for name, elements in gone.items()]
        lines += [_command("add", table, name, elements) for name, elements in come.items()]
        count = sum(len(elements) for part in (gone, come) for elements in part.values())
        return "".join(lines), count


def _kind(declared: str) -> str:
    return "map" if " : " in declared else "set"


def _command(verb: str, table: str, name: str, elements: dict[str, str]) -> str:
    return f"{verb} element {table} {name} {_listed('', elements)}"


def _listed(lead: str, elements: dict[str, str]) -> str:
    if not elements:
        return ""
    words = (f"{key} : {value}" if value else key for key, value in elements.items())
    return f"{lead}{{ {', '.join(words)} }}\n"
