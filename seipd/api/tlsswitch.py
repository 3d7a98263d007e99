"""Which certificate a TLS handshake gets, changed while connections go on.

A client that names the host that it wants (SNI) gets the certificate of that name, if there is
one. Everybody else gets the leaf of this server's own authority, which the root signed for: other
servers and ``seip`` come by address, name nobody, and pin that authority. So no certificate of a
CA, new, old or missing, ever comes between the mesh and itself.

A certificate is exchanged by putting a new context in the place of the old one: handshakes that are
under way end by the one that they began with, and connections that stand are not touched.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

from services.kernel.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)


class TlsSwitch:
    """The certificates in use, by name."""

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names that have a certificate of their own."""
        return tuple(sorted(self._contexts))

    def put(self, names: Iterable[str], certificate: Path, key: Path | None = None) -> None:
        """Use a certificate for names from now on; ``*.`` stands for one label.

        Raises:
            CorruptError: it can't be loaded; what was used before goes on.
        """
        context = new_context()
        try:
            context.load_cert_chain(certificate, key, password=_refuse_password)
        except (OSError, ValueError) as error:
            raise CorruptError(
                f"{certificate} is no certificate with its key: {error}",
                path=certificate.name,
                mend="put a PEM certificate, its chain and its key there",
            ) from error
        for name in names:
            self._contexts[name.lower()] = context

    def install(self, context: ssl.SSLContext) -> None:
        """Let a server's context, which serves its own leaf, choose by name."""
        context.sni_callback = self._choose

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext
    ) -> None:
        if name is None:
            return
        wanted = name.lower()
        found = self._contexts.get(wanted)
        if found is None:
            found = self._contexts.get(f"*.{wanted.partition('.')[2]}")
        if found is not None:
            connection.context = found


def new_context() -> ssl.SSLContext:
    """Return the TLS 1.3 context of a server; it has no certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _refuse_password() -> str:
    """Answer OpenSSL, which else would ask at the terminal for the password of a key."""
    raise ValueError("the key is sealed with a password")
