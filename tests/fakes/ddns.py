"""Dynamic DNS of which nobody makes use, and a provider that keeps what it is told."""

from __future__ import annotations

import random

from services.edge.ddns.service import DdnsService
from services.edge.ddns.store import ToldFile
from services.kernel.errors import NotFoundError, SeipdError


class Provider:
    """Remembers the addresses; fails while it is told to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.error: SeipdError | None = None
        self.asked_count = 0

    async def tell(self, target, address: str, secret: bytes) -> None:
        self.asked_count += 1
        if self.error is not None:
            raise self.error
        self.told.append(address)


def ddns_service(folder, clock, *, target=None, provider=None, address=lambda: "198.51.100.1"):
    """Return the service, with a secret of the name ``ddns`` alone."""

    def secret(name: str) -> bytes:
        if name != "ddns":
            raise NotFoundError("there is no such secret", code="no_secret")
        return b"word"

    return DdnsService(
        target=target,
        address=address,
        secret=secret,
        teller=provider or Provider(),
        file=ToldFile(folder / "dns" / "ddns.json"),
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        clock=clock,
        look_s=0.01,
    )
