"""Small parts of a simulated ledger: a reader that remembers, an author whose ids are seeded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.base.crypto.signatures import verify
from services.base.ledger.replay import check_entries
from tests.sim.founding import signed_record

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.standing import Checked
    from services.kernel.clock import Clock
    from services.kernel.records import Record


class Reader:
    """Parses and checks each entry once for all servers of a simulation."""

    def __init__(self, mesh_id: str) -> None:
        self._mesh_id = mesh_id
        self._known: dict[bytes, Checked] = {}

    def check(self, entries: Sequence[bytes]) -> list[Checked]:
        fresh = [data for data in entries if data not in self._known]
        checked = check_entries(fresh, mesh_id=self._mesh_id, verify=verify)
        self._known.update(zip(fresh, checked, strict=True))
        return [self._known[data] for data in entries]


class SeededAuthor:
    """Signs as Author does, with record ids that a seed gives."""

    def __init__(self, key: SigningKey, mesh_id: str, clock: Clock, rng: random.Random) -> None:
        self._key, self._mesh_id, self._clock, self._rng = key, mesh_id, clock, rng

    def record(self, kind: str, body: dict[str, Any]) -> Record:
        record_id = f"{self._rng.getrandbits(128):032x}"
        return signed_record(self._mesh_id, self._key, kind, body, record_id)
