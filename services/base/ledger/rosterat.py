"""The roster as one of its numbers left it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.ids import server_id_of

if TYPE_CHECKING:
    from services.base.ledger.roster import Charter
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import ServerId


class RosterAt:
    """The roster as one number left it; satisfies RosterReader."""

    def __init__(self, charter: Charter, number: int) -> None:
        self._charter = charter
        self._number = number

    @property
    def number(self) -> int:
        """The number of the roster."""
        return self._number

    def servers(self) -> list[ServerId]:
        """Return everybody who is a server by then."""
        return [one for one in self._charter.certificates() if self.server(one) is not None]

    def server(self, server_id: ServerId) -> ServerCertificate | None:
        """Return a server's certificate, or None."""
        return self._charter.certificate_at(server_id, self._number)

    def server_of_key(self, key: bytes) -> ServerCertificate | None:
        """Return the certificate of the server with this identity key, or None."""
        certificate = self.server(server_id_of(key))
        return certificate if certificate is not None and certificate.key == key else None

    @property
    def witnesses(self) -> tuple[ServerId, ...]:
        """The witnesses of this roster."""
        return self._charter.witnesses_at(self._number)
