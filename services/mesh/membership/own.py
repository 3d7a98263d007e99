"""What this server says of itself, and how it answers those who doubt it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.mesh.membership.alive import Alive, sign_alive

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer
    from services.mesh.membership.health import OwnTime
    from services.mesh.membership.states import Since

RECENT_S: Final = 60.0
"""So long after an ALIVE a suspicion of an older incarnation is taken for a late one."""
REFUTE_PAUSE_S: Final = 0.25


class OwnWord:
    """The incarnation of this server.

    It begins with the second of the start, so a restart is newer than what was before even where
    nothing was kept.
    """

    def __init__(
        self, *, signer: Signer, mesh_id: bytes, raw: bytes, time: OwnTime, incarnation: int
    ) -> None:
        self._signer = signer
        self._mesh_id = mesh_id
        self._time = time
        self.raw = raw
        self._incarnation = incarnation
        self._alive: Alive | None = None
        self._issued_s = float("-inf")

    @property
    def incarnation(self) -> int:
        """The newest."""
        return self._incarnation

    def alive(self, now: Since) -> Alive:
        """Return the newest word."""
        return self._alive or self.renew(self._incarnation, now)

    def renew(self, incarnation: int, now: Since) -> Alive:
        """Say it anew."""
        self._incarnation = incarnation
        self._issued_s = self._time.s
        self._alive = sign_alive(
            self._signer,
            self._mesh_id,
            server=self.raw,
            incarnation=incarnation,
            issued_ms=max(0, now.ms),
        )
        return self._alive

    def is_answered(self, claimed: int) -> bool:
        """Say whether the newest word refutes a suspicion of an incarnation already."""
        return claimed < self._incarnation and self._age_s() < RECENT_S

    def pause_s(self) -> float:
        """Return for how long not to say it anew: nobody shall make us sign all day."""
        return max(0.0, REFUTE_PAUSE_S - self._age_s())

    def is_own(self, alive: Alive) -> bool:
        """Say whether this server signed something, perhaps before it started."""
        return alive.is_signed_by(self._signer.public_key, self._mesh_id)

    def _age_s(self) -> float:
        return self._time.s - self._issued_s
