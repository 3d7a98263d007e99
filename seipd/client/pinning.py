"""TLS to a server that is believed by its own authority, whatever certificate others see."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable


class PinnedContext(ssl.SSLContext):
    """Names no host in its handshakes: who names one gets the certificate of a public CA."""

    @override
    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a handshake without a name."""
        return super().wrap_bio(incoming, outgoing, server_side, None, session)


def pinned_context(authority_pem: str) -> PinnedContext:
    """Return the TLS 1.3 context that believes one server's authority and nobody else.

    Raises:
        ssl.SSLError: not a certificate.
    """
    make: Callable[[int], PinnedContext] = PinnedContext
    context = make(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority_pem)
    return context
