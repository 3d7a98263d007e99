"""Asks a signer over mutual TLS with the SVID of this server, on another machine or on this one.

The signer's certificate must be signed by an authority of this server's own bundle and carry the
host name of the address among its DNS names: gRPC compares that name and no other. The name of
a unix socket is localhost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from services.base.signing.client import TIMEOUT_S, SigningCalls
from services.base.signing.svidfiles import SvidFiles, read_shown
from services.kernel.errors import ConfigError, ForbiddenError

if TYPE_CHECKING:
    from pathlib import Path

    import grpc

    from services.kernel.signing import KeyRotation

SCHEME = "tls://"


class RemoteSigner(SigningCalls):
    """Reaches a signer at ``tls://HOST:PORT`` or ``tls://unix:/PATH``; satisfies Signer.

    Raises:
        ConfigError: ``bad_signer_address``.
    """

    def __init__(self, address: str, files: SvidFiles, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(timeout_s=timeout_s)
        place = address.removeprefix(SCHEME)
        host, colon, port = place.rpartition(":")
        is_port = bool(host and colon) and port.isdecimal() and "/" not in place
        self._is_unix = place.startswith("unix:/")
        if place == address or not (is_port or self._is_unix):
            raise ConfigError(
                f"not the address of a signer: {address[:80]}",
                code="bad_signer_address",
                mend="write it as tls://signer.example:9107 or tls://unix:/run/signer.sock",
            )
        self._place = place
        self._files = files

    @override
    def _channel(self) -> grpc.aio.Channel:
        import grpc

        # Read anew for each connection: a renewed SVID is shown from then on.
        shown = read_shown(self._files)
        credentials = grpc.ssl_channel_credentials(shown.roots_pem, shown.key_pem, shown.chain_pem)
        options = [("grpc.ssl_target_name_override", "localhost")] if self._is_unix else None
        return grpc.aio.secure_channel(self._place, credentials, options=options)

    async def rotate(
        self, *, scope: str, old_key_id: str, new_key_id: str, opens_at_ms: int, closes_at_ms: int
    ) -> KeyRotation:
        """Refuse: a signer makes keys for its own machine alone.

        Raises:
            ForbiddenError: ``not_on_this_machine``.
        """
        del old_key_id, opens_at_ms, closes_at_ms
        raise ForbiddenError(
            "the signer is on another machine: keys are rotated there",
            code="not_on_this_machine",
            mend=f"seipd-signer rotate --scope {scope} --to {new_key_id}, on that machine",
        )


def svid_files_of(folder: Path) -> SvidFiles:
    """Return where a server keeps the SVID that it shows a signer."""
    return SvidFiles(
        chain=folder / "svid.pem", key=folder / "svid.key", bundle=folder / "svid_bundle.json"
    )
