"""Where a quote comes from, as those see it who need one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.base.attestation.messages import Evidence
    from services.base.attestation.verified import Platform


class Quoter(Protocol):
    """A device of this machine that can vouch for it."""

    @property
    def platform(self) -> Platform:
        """What kind of device it is."""

    async def quote(self, bound: bytes) -> Evidence:
        """Return evidence with these bytes in it.

        Raises:
            UnavailableError: ``attestation_unavailable``: the device does not answer.
        """
