"""What a view sees while a record is folded, and what the fold needs of a view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from services.kernel.hlc import Hlc, hlc_ms

if TYPE_CHECKING:
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import MeshId, ServerId
    from services.kernel.records import Record


class StateReader(Protocol):
    """The replicated state: JSON objects by view and key."""

    def get(self, view: str, key: str) -> Any:  # noqa: ANN401 (JSON)
        """Return the object, or None."""


class StateWriter(StateReader, Protocol):
    """The state as an applier may change it."""

    def put(self, view: str, key: str, value: Any) -> None:  # noqa: ANN401 (JSON)
        """Set an object."""

    def delete(self, view: str, key: str) -> None:
        """Remove an object; it need not exist."""


class RosterReader(Protocol):
    """The servers of the mesh as one roster number has them."""

    @property
    def number(self) -> int:
        """The number of the roster."""

    @property
    def witnesses(self) -> tuple[ServerId, ...]:
        """The witnesses of this roster."""

    def servers(self) -> Iterable[ServerId]:
        """Return everybody who is a server by then."""

    def server(self, server_id: ServerId) -> ServerCertificate | None:
        """Return the certificate, or None where there is no such server."""

    def server_of_key(self, key: bytes) -> ServerCertificate | None:
        """Return the certificate of the server with this identity key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldContext:
    """One record on its way into the state."""

    state: StateWriter
    record: Record
    hlc: Hlc
    author: ServerCertificate
    roster: RosterReader
    root_keys: frozenset[bytes]
    mesh_id: MeshId

    @property
    def stamp_ms(self) -> int:
        """Milliseconds of the stamp: the only time that a rule may compare with."""
        return hlc_ms(self.hlc)


Applier = Callable[[FoldContext, dict[str, Any]], None]
"""Changes the state by one record, or raises RejectedError or InputError and changes nothing."""

Appliers = Mapping[str, Applier]
