"""The roster as one of its numbers left it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from services.kernel.ids import server_id_of

if TYPE_CHECKING:
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import ServerId


class History(Protocol):
    """What is asked of the roster's history."""

    def certificates(self) -> dict[ServerId, ServerCertificate]:
        """Return the newest certificate of everybody who is or was a server."""

    def certificate_at(self, server_id: ServerId, number: int) -> ServerCertificate | None:
        """Return a server's certificate as of a roster number."""

    def witnesses_at(self, number: int) -> tuple[ServerId, ...]:
        """Return the witnesses that a change named."""


class RosterAt:
    """The roster as one number left it; satisfies RosterReader."""

    def __init__(self, charter: History, number: int) -> None:
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
