"""Which node people mean: one, or it is said that there are several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.edge.acl.rules import EVERYBODY
from services.kernel.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from services.base.ledger.state import State


def find_endpoint(state: State, text: str) -> str:
    """Return the endpoint with this id, address, name, or name and customer.

    Raises:
        NotFoundError: none is called that.
        ConflictError: ``ambiguous``: several are.
    """
    return _only(text, _found(state, text, {"endpoint"}), "endpoint")


def find_end(state: State, text: str) -> str:
    """Return the endpoint or customer that an end of a rule is; the root for ``everybody``.

    Raises:
        NotFoundError: none is called that.
        ConflictError: ``ambiguous``: several are.
    """
    if text == EVERYBODY:
        root: str = state.get("mesh", "root_node")
        return root
    return _only(text, _found(state, text, {"endpoint", "customer"}), "endpoint or customer")


def _found(state: State, text: str, kinds: set[str]) -> list[str]:
    held = state.get("ipam", text)
    given = str(held) if held is not None else text
    if _is(state.get("tree", given), kinds):
        return [given]
    name, _, above = text.partition(".")
    # A name in full, as DNS has it, begins with the endpoint and its customer.
    customer = above.partition(".")[0]
    found = []
    for _, key, node_id in state.scan("name"):
        parent, _, called = key.partition("/")
        if called != name or not _is(state.get("tree", node_id), kinds):
            continue
        if not customer or (state.get("tree", parent) or {}).get("name") == customer:
            found.append(str(node_id))
    return sorted(found)


def _is(node: dict[str, Any] | None, kinds: set[str]) -> bool:
    return node is not None and node["kind"] in kinds


def _only(text: str, found: list[str], what: str) -> str:
    if not found:
        raise NotFoundError(f"no {what} is called {text[:80]}")
    if len(found) > 1:
        raise ConflictError(
            f"{len(found)} are called {text[:80]}",
            code="ambiguous",
            mend="write NAME.CUSTOMER, the tunnel address or the id",
        )
    return found[0]
