"""For which endpoints something else is open after a change. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.policy.deciding import VIEW

if TYPE_CHECKING:
    from services.edge.policy.book import PolicyBook


def concerned(
    book: PolicyBook,
    view: str,
    key: str,
    old: dict[str, Any] | None,
    new: dict[str, Any] | None,
) -> set[str] | None:
    """Return the endpoints that another set of sources may reach; None for all.

    To be asked before and after the book has taken the change: what has gone is found before.
    """
    if view == VIEW:
        return _at(book, {key.partition("/")[0]})
    told = ("kind", "parent", "record", "address")
    if old is not None and new is not None and all(old.get(one) == new.get(one) for one in told):
        return set()
    path = book.path_of(key)
    if not path:
        return set()
    if not book.is_endpoint(key):
        # A customer without endpoints is nothing to anybody yet.
        return None if any(book.is_endpoint(one) for one in book.below(key)) else set()
    # Its brothers tell it from strangers, as do those whose rules name what it belongs to.
    brothers = set(book.below(path[1], depth=1)) if len(path) > 1 else set()
    named = {target for one in path if not book.is_root(one) for target in book.targets_of(one)}
    held = _at(book, named)
    return None if held is None else held | brothers


def _at(book: PolicyBook, targets: set[str]) -> set[str] | None:
    if any(book.is_root(one) for one in targets):
        return None
    return {
        one for target in targets for one in (target, *book.below(target)) if book.is_endpoint(one)
    }
