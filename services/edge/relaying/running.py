"""What a relay needs beside its sessions, a server's own as well as one that stands alone."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from services.authority.relays.usage import Usage, signed_usage
from services.edge.stun.service import ANY4, ANY6, is_here
from services.kernel.errors import InputError
from services.kernel.ids import relay_id_of
from services.kernel.targets import PRIVATE_NETWORKS, is_private, normalised, why_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.base.crypto.signatures import Signer
    from services.edge.relay.settings import Statement
    from services.kernel.ids import MeshId
    from services.kernel.targets import Network

DATA_PORTS: Final = 256


def raw_relay_id(key: bytes) -> bytes:
    """Return the sixteen bytes of the id of the relay with this identity key."""
    return uuid.UUID(relay_id_of(key)).bytes


def bind_hosts(bind_address: str) -> tuple[str, ...]:
    """Return where a relay listens: everywhere means both kinds of addresses, as far as here."""
    if bind_address != ANY4:
        return (bind_address,)
    return tuple(one for one in (ANY4, ANY6) if is_here(one))


def party_refusals(
    publics: Collection[str], *, port: int, inner: Callable[[], Collection[Network]]
) -> Callable[[str, int], str | None]:
    """Return what judges where a party of a session seems to be.

    Private addresses are for relays that have one themselves. What is of the mesh's inside is
    nobody's, and this relay's own ports are not either: it would talk to itself.

    Args:
        publics: the relay's own addresses.
        port: its control port.
        inner: the networks of the mesh.
    """
    own = frozenset(normalised(one) for one in publics)
    on_link = PRIVATE_NETWORKS if any(map(is_private, own)) else ()
    ports = range(port, port + DATA_PORTS + 1)

    def refused(host: str, at: int) -> str | None:
        try:
            if at in ports and normalised(host) in own:
                return "this relay"
        except InputError:
            return "not an address"
        return why_refused(host, at, mesh_ranges=inner(), on_link=on_link)

    return refused


def statements(signer: Signer, mesh_id: MeshId) -> Statement:
    """Return what makes a relay's signed statements of what it carried."""
    relay_id = raw_relay_id(signer.public_key)

    def statement(
        *, nonce: bytes, key: bytes, bytes_from: int, bytes_to: int, started_ms: int, told_ms: int
    ) -> bytes:
        usage = Usage(
            relay=relay_id,
            session=nonce,
            party=key,
            from_bytes=bytes_from,
            to_bytes=bytes_to,
            started_ms=started_ms,
            told_ms=max(told_ms, started_ms),
        )
        return signed_usage(signer, mesh_id, usage)

    return statement
