"""Asks the signer over its unix socket; checks what comes back before anybody relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.crypto.signatures import verify
from services.kernel.errors import (
    ForbiddenError,
    NotFoundError,
    SeipdError,
    UnavailableError,
)
from services.kernel.signing import PublicKeyInfo

if TYPE_CHECKING:
    import grpc

TIMEOUT_S = 5.0


class GrpcSigner:
    """Reaches a signer at the path of its socket; satisfies Signer."""

    def __init__(self, socket: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._address = socket if "://" in socket else f"unix:{socket}"
        self._timeout_s = timeout_s

    async def sign(self, canonical_bytes: bytes, *, scope: str, key_id: str) -> bytes:
        """Return a signature that was checked against the key's public half.

        Raises:
            ForbiddenError: the signer refuses.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``signer_unavailable``, or its answer is wrong.
        """
        import grpc

        from services.base.signing import signer_pb2, signer_pb2_grpc

        request = signer_pb2.SignRequest(
            canonical_bytes=canonical_bytes, scope=scope, key_id=key_id
        )
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = signer_pb2_grpc.SigningStub(channel)
            try:
                reply = await stub.Sign(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                raise _error_of(error) from error
        info = await self.public_key(scope=scope, key_id=key_id)
        if not verify(info.public_key, canonical_bytes, reply.signature):
            raise UnavailableError(
                "the signer answered with a wrong signature", code="provider_unavailable"
            )
        signature: bytes = reply.signature
        return signature

    async def public_key(self, *, scope: str, key_id: str) -> PublicKeyInfo:
        """Return the public half of a key.

        Raises:
            NotFoundError: ``key_unknown``.
            UnavailableError: ``signer_unavailable``.
        """
        import grpc

        from services.base.signing import signer_pb2, signer_pb2_grpc

        request = signer_pb2.PublicKeyRequest(scope=scope, key_id=key_id)
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = signer_pb2_grpc.SigningStub(channel)
            try:
                reply = await stub.PublicKey(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                raise _error_of(error) from error
        return PublicKeyInfo(public_key=reply.public_key, key_id=reply.key_id, state=reply.state)


def _error_of(error: grpc.aio.AioRpcError) -> SeipdError:
    import grpc

    code, _, what = (error.details() or "").partition(": ")
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return NotFoundError(what, code=code)
    if error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT):
        return ForbiddenError(what, code=code)
    return UnavailableError(
        "the signer does not answer",
        code="signer_unavailable",
        mend="look at systemctl status seipd-signer, or at the daemon's log",
    )
