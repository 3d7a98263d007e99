r"""What a server says of itself when it starts or is suspected: I am here. Pure.

    server (8) || incarnation (u64) || issued, ms of UTC (u64) || Ed25519 signature (64)

    signed: "seipd/alive/v1\0" || mesh id (32) || the first 24 bytes

Only the subject can sign, so nobody else can raise its incarnation, and old words stay old.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.base.crypto.signatures import verify
from services.kernel.errors import WireError
from services.kernel.ids import SIGNATURE_BYTES

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer

_BODY: Final = struct.Struct("!8sQQ")
ALIVE_BYTES: Final = _BODY.size + SIGNATURE_BYTES
_PURPOSE: Final = b"seipd/alive/v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A parsed word of a server about itself; its signature is not checked yet."""

    server: bytes
    incarnation: int
    issued_ms: int
    encoded: bytes

    def is_signed_by(self, key: bytes, mesh_id: bytes) -> bool:
        """Say whether the holder of ``key`` signed this for that mesh."""
        body, signature = self.encoded[: _BODY.size], self.encoded[_BODY.size :]
        return verify(key, _PURPOSE + mesh_id + body, signature)


def sign_alive(
    signer: Signer, mesh_id: bytes, *, server: bytes, incarnation: int, issued_ms: int
) -> Alive:
    """Return a new word of the signer about itself."""
    body = _BODY.pack(server, incarnation, issued_ms)
    encoded = body + signer.sign(_PURPOSE + mesh_id + body)
    return Alive(server=server, incarnation=incarnation, issued_ms=issued_ms, encoded=encoded)


def decode_alive(data: bytes) -> Alive:
    """Parse the 88 bytes.

    Raises:
        WireError: another length.
    """
    if len(data) != ALIVE_BYTES:
        raise WireError("not a sign of life")
    server, incarnation, issued_ms = _BODY.unpack_from(data)
    return Alive(server=server, incarnation=incarnation, issued_ms=issued_ms, encoded=data)
