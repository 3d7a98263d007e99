"""Which sessions an endpoint has, by its WireGuard key. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.edge.relay.model import Party


class Clients:
    """An index of parties; most endpoints have one session, which costs no list."""

    __slots__ = ("_parties",)

    def __init__(self) -> None:
        self._parties: dict[bytes, Party | list[Party]] = {}

    def of(self, key: bytes) -> list[Party]:
        """Return what an endpoint is a party of."""
        found = self._parties.get(key, [])
        return list(found) if isinstance(found, list) else [found]

    def add(self, party: Party) -> None:
        """Note a party."""
        found = self.of(party.key)
        self._parties[party.key] = [*found, party] if found else party

    def remove(self, party: Party) -> None:
        """Forget a party."""
        left = [one for one in self.of(party.key) if one is not party]
        if left:
            self._parties[party.key] = left if len(left) > 1 else left[0]
        else:
            self._parties.pop(party.key, None)

    def keys(self) -> list[bytes]:
        """Return who has a session."""
        return list(self._parties)
