"""A state with a tree and rules, made by hand; and traffic drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from services.authority.policy.deciding import VIEW, pair_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_EDGES = [1, 2, 22, 80, 443, 1023, 1024, 8000, 8080, 65534, 65535]


def _ranged(protocol: str, ports: tuple[int, int]) -> str:
    low, high = sorted(ports)
    return f"{protocol}/{low}" if low == high else f"{protocol}/{low}-{high}"


_PORT = st.sampled_from(_EDGES)
TRAFFIC = st.one_of(
    st.sampled_from(["any", "icmp", "tcp", "udp"]),
    st.builds(_ranged, st.sampled_from(["tcp", "udp"]), st.tuples(_PORT, _PORT)).filter(
        lambda text: not text.endswith("/1-65535")
    ),
)


class StillState:
    """Satisfies StateReader; ``tree`` names the parent of each node.

    A node whose parent is the root's child or the root is what its letters say: endpoints are those
    that end in a digit.
    """

    def __init__(
        self,
        tree: Mapping[str, str | None],
        rules: Iterable[tuple[str, str, str, str]] = (),
    ) -> None:
        self.tree: dict[str, dict[str, Any]] = {}
        self.acl: dict[str, dict[str, Any]] = {}
        addresses = iter(range(10, 4000))
        for name, parent in tree.items():
            node = {"kind": "customer", "name": name, "parent": parent, "record": f"made {name}"}
            if parent is None:
                node["kind"] = "root"
            elif name[-1].isdigit():
                offset = next(addresses)
                node |= {"kind": "endpoint", "address": f"10.64.{offset >> 8}.{offset & 255}"}
            self.tree[name] = node
        for number, (effect, source, target, traffic) in enumerate(rules):
            self.add(f"rule{number}", effect, source, target, traffic)

    def add(self, rule: str, effect: str, source: str, target: str, traffic: str) -> None:
        """Say something of two nodes."""
        key = pair_key(target, source)
        made = [self.tree[target]["record"], self.tree[source]["record"]]
        held = self.acl.get(key, {"made": made, "rules": {}})
        said = {"allows": effect == "allow", "traffic": traffic}
        self.acl[key] = {**held, "rules": {**held["rules"], rule: said}}

    def get(self, view: str, key: str) -> Any:
        """Return the object of a view, or None."""
        return {"tree": self.tree, VIEW: self.acl}.get(view, {}).get(key)

    def scan(self, *views: str) -> Iterable[tuple[str, str, Any]]:
        """Yield all objects of these views."""
        for view in views:
            for key, value in {"tree": self.tree, VIEW: self.acl}[view].items():
                yield view, key, value
