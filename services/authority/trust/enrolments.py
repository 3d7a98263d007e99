"""Hardware that vouches for servers: what is enrolled, and this server's word on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.authority.trust.enrolled import (
    ENROLL_KIND,
    NOTHING,
    VIEW,
    WITHDRAW_KIND,
    WITHDRAWN,
    electors_of,
    enrolled_of,
    entry_in,
)
from services.base.attestation.judging import HardwarePolicy
from services.base.attestation.verified import Platform
from services.kernel.errors import NotFoundError
from services.kernel.ids import ServerId, server_id_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from services.authority.ports import Json, Ledger
    from services.base.ledger.author import Author
    from services.base.ledger.watching import Change


class Enrolments:
    """Reads and writes what ``attestation.enroll`` says; ``roots`` are those of the makers."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        author: Author,
        roots: Callable[[Platform], tuple[x509.Certificate, ...]],
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._roots = roots

    def subscribe(self, hear: Callable[[bytes], None]) -> None:
        """Tell the key of each server whose entry may have changed."""

        def tell(changes: list[Change]) -> None:
            for change in changes:
                key = self._ledger.charter.key_of(ServerId(change.key))
                if key is not None:
                    hear(key)

        self._ledger.subscribe([VIEW], tell)

    def policy_of(self, server_key: bytes) -> HardwarePolicy | None:
        """Return what is believed of the hardware of one server; None where nothing is enrolled."""
        entry = enrolled_of(self._ledger.state, server_id_of(server_key))
        if entry is None:
            return None
        is_tpm = entry.platform is Platform.TPM2
        return HardwarePolicy(
            anchors={entry.platform: self._roots(entry.platform)},
            enrolled_aks={bytes.fromhex(entry.hardware)} if is_tpm and entry.hardware else set(),
            hardware=entry.hardware,
            registers={entry.platform: entry.registers},
        )

    def shown(self, server_id: ServerId) -> Json:
        """Return what is enrolled for a server, and who of tier 1 holds what.

        Raises:
            NotFoundError: there is no such server.
        """
        self._require_server(server_id)
        charter, state = self._ledger.charter, self._ledger.state
        held = state.get(VIEW, server_id) or NOTHING
        electors = electors_of(state, charter.at(charter.number))

        def held_by(word: str) -> list[str]:
            return sorted(
                one for one, said in held["words"].items() if said == word and one in electors
            )

        return {
            "server_id": server_id,
            "in_force": held["in_force"],
            "electors": len(electors),
            "needed": len(electors) // 2 + 1,
            "withdrawn_by": held_by(WITHDRAWN),
            "entries": [
                {
                    "id": digest,
                    **entry,
                    "in_force": digest == held["in_force"],
                    "held_by": held_by(digest),
                }
                for digest, entry in sorted(held["entries"].items())
            ],
        }

    async def say(self, server_id: ServerId, entry: Json) -> Json:
        """Say that this hardware is a server's, in the name of this server; return ``shown``.

        Raises:
            InputError: malformed, or it says too little.
            NotFoundError: there is no such server.
            RejectedError: ``rejected_not_eligible`` or ``no_change``.
        """
        self._require_server(server_id)
        _, checked = entry_in({"server": server_id, **entry})
        await self._ledger.name_roster()
        body = {"server": server_id, **checked}
        await self._ledger.submit([self._author.record(ENROLL_KIND, body)])
        return self.shown(server_id)

    async def withdraw(self, server_id: ServerId) -> Json:
        """Say that nothing vouches for a server, in the name of this one; return ``shown``.

        Raises:
            NotFoundError: there is no such server.
            RejectedError: ``rejected_not_eligible`` or ``no_change``.
        """
        self._require_server(server_id)
        await self._ledger.name_roster()
        await self._ledger.submit([self._author.record(WITHDRAW_KIND, {"server": server_id})])
        return self.shown(server_id)

    def _require_server(self, server_id: ServerId) -> None:
        if self._ledger.charter.server(server_id) is None:
            raise NotFoundError(f"there is no server {server_id}")
