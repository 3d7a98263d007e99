"""What every layer of the daemon stands on: known before the first service is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd.config.check import refuse_other_ranges
from seipd.config.paths import Paths
from services.base.ledger.roster import Charter
from services.kernel.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seipd.config.model import Settings
    from services.base.keywrap.identity import ServerIdentity
    from services.base.storage.service import StorageService
    from services.kernel.addr import Ranges
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock
    from services.kernel.ids import MeshId
    from services.kernel.records import Record
    from services.runtime.tasks import TaskOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The settings, who this server is, and the mesh as it was last remembered."""

    settings: Settings
    paths: Paths
    storage: StorageService
    identity: ServerIdentity
    records: Sequence[Record]
    charter: Charter
    own: ServerCertificate
    clock: Clock
    tasks: TaskOwner
    on_fatal: Callable[[BaseException], None]
    unlock: Callable[[], bytes]
    """Reads the secret that this server's own secrets are sealed with."""

    @property
    def mesh_id(self) -> MeshId:
        """The name of the mesh."""
        return self.charter.genesis.mesh_id

    @property
    def ranges(self) -> Ranges:
        """The address ranges of the mesh."""
        return self.charter.genesis.ranges


def ground_of(
    settings: Settings,
    *,
    storage: StorageService,
    identity: ServerIdentity,
    charter_records: Sequence[Record],
    clock: Clock,
    tasks: TaskOwner,
    on_fatal: Callable[[BaseException], None],
    unlock: Callable[[], bytes],
) -> Ground:
    """Return what the layers stand on.

    Raises:
        StartError: ``revoked``.
        ConfigError: the settings name other address ranges than the genesis.
    """
    charter = charter_of(charter_records)
    refuse_other_ranges(settings, charter.genesis.ranges)
    return Ground(
        settings=settings,
        paths=Paths(settings.data_root),
        storage=storage,
        identity=identity,
        records=charter_records,
        charter=charter,
        own=own_in(charter, identity),
        clock=clock,
        tasks=tasks,
        on_fatal=on_fatal,
        unlock=unlock,
    )


def charter_of(records: Sequence[Record]) -> Charter:
    """Return the roster that was remembered."""
    charter = Charter(records[0])
    for record in records[1:]:
        charter.offer(record)
    return charter


def own_in(charter: Charter, identity: ServerIdentity) -> ServerCertificate:
    """Return this server's certificate.

    Raises:
        StartError: ``revoked``.
    """
    own = charter.server(identity.server_id)
    if own is None:
        raise StartError(
            "the roster does not name this server any more",
            service="ledger",
            code="revoked",
            mend="take another data root and join anew",
        )
    return own
