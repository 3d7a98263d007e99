"""What a server saw of the others, as a test says it."""

from __future__ import annotations

from services.authority.trust.policy import Attested, Released


class Seen:
    """Satisfies Sources; nothing was seen of whom the test does not name."""

    def __init__(self) -> None:
        self.uptimes: dict[str, tuple[int | None, int]] = {}
        self.quotes: dict[str, Attested] = {}
        self.releases: dict[str, Released] = {}
        self.looks = 0

    def begin(self) -> None:
        self.looks += 1

    def uptime(self, server_id: str) -> tuple[int | None, int]:
        return self.uptimes.get(server_id, (None, 0))

    def attested(self, server_id: str) -> Attested:
        return self.quotes.get(server_id, Attested())

    def released(self, server_id: str) -> Released:
        return self.releases.get(server_id, Released())
