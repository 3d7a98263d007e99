"""The data ports: which there are, and which nobody is given. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.edge.relay.model import DATA_PORTS, Place

if TYPE_CHECKING:
    from collections.abc import Collection


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

    def lowest(self, host: str, taken: Collection[int]) -> Place | None:
        """Return the place at the lowest port that is not taken; None where all are."""
        for port in self._ports:
            if port not in taken and port not in self._barred:
                return self._places.setdefault((host, port), Place(host=host, port=port))
        return None
