"""The parts of the mesh that a single server in a test does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.kernel.errors import UnreachableError

if TYPE_CHECKING:
    from services.base.ledger.service import LedgerService


class NobodyThere:
    """The way to other servers, where there are none."""

    async def ask(self, server: object, wish: object) -> bytes:
        raise UnreachableError("there is no other server")


class StillMesh:
    """The parts of the mesh that a single server in a test does not have."""

    def __init__(self, ledger: LedgerService) -> None:
        self._ledger = ledger
        self.facts: list[bytes] = []
        self.services: list[dict[str, Any]] = []
        self.insecure: list[str] = []
        self.agreed: Any = None

    def status(self) -> dict[str, Any]:
        return {
            "services": list(self.services),
            "insecure": list(self.insecure),
            "mesh_id": self._ledger.mesh_id,
            "server_id": self._ledger.server_id,
            "region": "eu-central",
            "records": 1,
            "state_hash": self._ledger.state.root().hex(),
            "feeds": [],
            "ports": {"private_http": 9101},
        }

    def servers(self) -> list[dict[str, Any]]:
        return []

    def counters(self) -> dict[str, int]:
        return {"sent": 7, "refused_jump": 1}

    async def peers(self) -> list[dict[str, Any]]:
        return []

    def addresses(self) -> tuple[str, ...]:
        return ("127.0.0.1:9100",)

    def agreed_state(self) -> Any:
        return self.agreed

    def address_facts(self) -> list[bytes]:
        return []

    def learn_address(self, fact: bytes) -> None:
        self.facts.append(fact)

    def wireguard_endpoint(self) -> str:
        return "127.0.0.1:51940"

    def wireguard_endpoint6(self) -> str | None:
        return None

    async def doctor(self) -> list[dict[str, Any]]:
        return []

    async def nat(self) -> dict[str, Any] | None:
        return None
