"""Whose children nodes are. Pure."""

from __future__ import annotations


class Kin:
    """The parent of each node, and its children; the root, whose parent is None, is left out."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._children: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def note(self, node_id: str, parent: str | None) -> None:
        """Take where a node is now; None where it is gone. Saying it again changes nothing."""
        old = self._parents.pop(node_id, None)
        if old is not None:
            siblings = self._children[old]
            siblings.discard(node_id)
            if not siblings:
                del self._children[old]
        if parent is not None:
            self._parents[node_id] = parent
            self._children.setdefault(parent, set()).add(node_id)

    def below(self, node_id: str) -> tuple[str, ...]:
        """Return the children of a node."""
        return tuple(self._children.get(node_id, ()))
