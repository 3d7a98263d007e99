"""The servers of the mesh as a relay knows them: by what the root signed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.crypto.signatures import verify
from services.base.ledger.roster import Charter
from services.kernel.errors import RejectedError, SeipdError, UnauthenticatedError
from services.kernel.records import record_from_value
from services.kernel.targets import inner_networks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.ids import MeshId
    from services.kernel.records import Record
    from services.kernel.targets import Network

MAX_RECORDS = 4096


class MeshRoster:
    """The roster's history as far as it was shown."""

    def __init__(self, mesh_id: MeshId) -> None:
        self.mesh_id = mesh_id
        self._charter: Charter | None = None

    @property
    def number(self) -> int:
        """The number of the newest change; -1 before the genesis was shown."""
        return -1 if self._charter is None else self._charter.number

    def is_server(self, key: bytes) -> bool:
        """Say whether a key is that of a server of the mesh now."""
        charter = self._charter
        return charter is not None and charter.at(charter.number).server_of_key(key) is not None

    def names(self, server_id: str) -> bool:
        """Say whether a server of this id is in the mesh now."""
        return self._charter is not None and server_id in self._charter.servers()

    def inner_networks(self) -> tuple[Network, ...]:
        """Return what lies inside of the mesh; nothing before the genesis was shown."""
        if self._charter is None:
            return ()
        return inner_networks(self.mesh_id, self._charter.genesis.ranges)

    def take(self, values: Sequence[object]) -> bool:
        """Take records that somebody shows, in their order; say whether anything is new.

        The genesis comes first, unless it is known.

        Raises:
            UnauthenticatedError: ``untrusted_server``: one is not by the root of this mesh.
        """
        before = self.number
        try:
            for value in values[:MAX_RECORDS]:
                self._take(record_from_value(value))
        except RejectedError:
            # Another server shows a change that has lost: the ones before it count.
            pass
        except (SeipdError, KeyError, TypeError) as error:
            raise UnauthenticatedError(
                f"what it shows is not the root's: {error}", code="untrusted_server"
            ) from error
        return self.number > before

    def values(self) -> list[object]:
        """Return what to remember."""
        return [] if self._charter is None else [one.value() for one in self._charter.records]

    def _take(self, record: Record) -> None:
        if not verify(record.actor, record.signed_bytes(self.mesh_id), record.actor_sig):
            raise UnauthenticatedError("a record is not signed")
        if self._charter is None:
            charter = Charter(record)
            if charter.genesis.mesh_id != self.mesh_id:
                raise UnauthenticatedError("it is of another mesh")
            self._charter = charter
        elif record != self._charter.records[0]:
            self._charter.offer(record)
