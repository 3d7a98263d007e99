"""What WireGuard has yet to be told: the newest wish for each peer, those who go first.

A wish that was refused is put off and never overtakes a newer one for the same peer: whoever was
revoked meanwhile does not come back by it. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.edge.wireguard.model import InterfacePlan

if TYPE_CHECKING:
    from services.edge.wireguard.model import PeerConfig

    Wish = PeerConfig | InterfacePlan | bytes


_PLAN = b""


class Wishes:
    """A peer to have, a plan to follow, or the key of a peer to remove."""

    def __init__(self) -> None:
        self._removed: dict[bytes, None] = {}
        self._plan: InterfacePlan | None = None
        self._wanted: dict[bytes, PeerConfig] = {}
        self._put_off: dict[bytes, Wish] = {}

    def __len__(self) -> int:
        """How many wait, those that were put off among them."""
        waiting = len(self._removed) + len(self._wanted) + len(self._put_off)
        return waiting + (self._plan is not None)

    @property
    def put_off_count(self) -> int:
        """How many were refused and are to be tried again."""
        return len(self._put_off)

    def remove(self, key: bytes) -> None:
        """Have this peer no more."""
        self._wanted.pop(key, None)
        self._put_off.pop(key, None)
        self._removed[key] = None

    def plan(self, plan: InterfacePlan) -> None:
        """Have these addresses and routes."""
        self._put_off.pop(_PLAN, None)
        self._plan = plan

    def want(self, peer: PeerConfig) -> None:
        """Have this peer so."""
        self._removed.pop(peer.public_key, None)
        self._put_off.pop(peer.public_key, None)
        self._wanted[peer.public_key] = peer

    def take(self) -> Wish | None:
        """Return the next wish, or None."""
        if self._removed:
            return self._removed.popitem()[0]
        if self._plan is not None:
            plan, self._plan = self._plan, None
            return plan
        if self._wanted:
            key = next(iter(self._wanted))
            return self._wanted.pop(key)
        return None

    def forget(self) -> None:
        """Have nothing more."""
        self._plan = None
        self._wanted.clear()
        self._put_off.clear()

    def put_off(self, wish: Wish) -> None:
        """Keep a wish that was refused until ``try_again``, unless there is a newer one."""
        if isinstance(wish, InterfacePlan):
            if self._plan is None:
                self._put_off[_PLAN] = wish
            return
        key = wish if isinstance(wish, bytes) else wish.public_key
        if key not in self._removed and key not in self._wanted:
            self._put_off[key] = wish

    def try_again(self) -> None:
        """Wish anew what was put off."""
        again, self._put_off = self._put_off, {}
        for key, wish in again.items():
            if isinstance(wish, InterfacePlan):
                self._plan = wish
            elif isinstance(wish, bytes):
                self._removed[key] = None
            else:
                self._wanted[key] = wish
