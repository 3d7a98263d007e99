"""The data ports: which there are, and which nobody is given. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.edge.relay.model import DATA_PORTS, Place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from services.edge.relay.model import Party


class Places:
    """One place for each port and address of the relay, made when it is first given away."""

    __slots__ = ("_barred", "_places", "_ports")

    def __init__(self, first_port: int) -> None:
        self._ports = range(first_port, first_port + DATA_PORTS)
        self._barred: set[int] = set()
        self._places: dict[tuple[str, int], Place] = {}

    def bar(self, port: int) -> None:
        """Give a port to nobody any more: another program has it."""
        self._barred.add(port)

    def is_at(self, place: Place | None, host: str) -> bool:
        """Say whether a place is one of this address, and still good."""
        return place is not None and place.host == host and place.port not in self._barred

    def beside(self, other: Place | None, host: str, near: Iterable[Party]) -> Place | None:
        """Return the place with the port that the other side has, on the address of this one.

        Where the other has none yet, the lowest that is of none of the parties near. None where
        there is no such port.
        """
        if other is not None and other.port not in self._barred:
            return self._at(host, other.port)
        return self.lowest(host, {one.place.port for one in near if one.place is not None})

    def lowest(self, host: str, taken: Collection[int]) -> Place | None:
        """Return the place at the lowest port that is not taken; None where all are."""
        for port in self._ports:
            if port not in taken and port not in self._barred:
                return self._at(host, port)
        return None

    def _at(self, host: str, port: int) -> Place:
        return self._places.setdefault((host, port), Place(host=host, port=port))
