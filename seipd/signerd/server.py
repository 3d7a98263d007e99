"""The gRPC side of the signer: requests to the core and back, refusals as stable strings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import grpc
from typing_extensions import override

from seipd.signerd.providers.base import require_length
from services.base.crypto.signatures import verify
from services.base.signing import signer_pb2, signer_pb2_grpc
from services.base.signing.recovery_wire import MAX_MESSAGE_BYTES
from services.kernel.errors import (
    ConfigError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SeipdError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from seipd.signerd.core import KeyRow, KeyTable
    from seipd.signerd.providers.base import KeyProvider

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 500
STOP_GRACE_S = 1.0

_PROVIDER_FAILED = "provider_unavailable: the key provider does not sign"


class SigningServicer(signer_pb2_grpc.SigningServicer):
    """Sign and PublicKey."""

    def __init__(self, *, table: KeyTable, provider: KeyProvider) -> None:
        self._table = table
        self._provider = provider

    @override
    async def Sign(
        self,
        request: signer_pb2.SignRequest,
        context: grpc.aio.ServicerContext[signer_pb2.SignRequest, signer_pb2.SignReply],
    ) -> signer_pb2.SignReply:
        """Sign exactly the bytes given, if the key may."""
        data = request.canonical_bytes
        try:
            row = self._table.may_sign(request.scope, request.key_id, data)
            require_length(data, self._provider.max_bytes)
        except SeipdError as error:
            logger.warning(
                "refused to sign", extra={"code": error.code, "key_id": request.key_id[:128]}
            )
            await context.abort(_status_of(error), f"{error.code}: {error}")
            raise
        signature = await self._signed(row, data)
        if signature is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, _PROVIDER_FAILED)
        return signer_pb2.SignReply(signature=signature, key_id=row.key_id)

    @override
    async def PublicKey(
        self,
        request: signer_pb2.PublicKeyRequest,
        context: grpc.aio.ServicerContext[signer_pb2.PublicKeyRequest, signer_pb2.PublicKeyReply],
    ) -> signer_pb2.PublicKeyReply:
        """Tell the public half of a key."""
        try:
            row = self._table.find(request.scope, request.key_id)
        except SeipdError as error:
            await context.abort(_status_of(error), f"{error.code}: {error}")
            raise
        return signer_pb2.PublicKeyReply(
            public_key=row.public_key, key_id=row.key_id, state=row.state.value
        )

    async def _signed(self, row: KeyRow, data: bytes) -> bytes | None:
        """Return a signature that verifies; None where the provider has none to give."""
        try:
            signature = await asyncio.to_thread(self._provider.sign, row.handle, data)
        except SeipdError as error:
            logger.error("the key provider fails: %s", error, extra={"code": error.code})  # noqa: TRY400 (the error says all)
            return None
        # A token may have lost its slot, a service its key version: never pass that on.
        if not verify(row.public_key, data, signature):
            logger.error("the key provider signed with another key", extra={"key_id": row.key_id})
            return None
        return signature


@contextlib.asynccontextmanager
async def serve(
    servicer: signer_pb2_grpc.SigningServicer,
    socket: Path,
    *,
    others: Sequence[grpc.GenericRpcHandler[bytes, bytes]] = (),
) -> AsyncIterator[None]:
    """Serve on a unix socket while the context lasts; ``others`` stand beside the two calls.

    Raises:
        ConfigError: ``bad_socket``: the socket can't be made there.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=MAX_IN_FLIGHT,
        options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)],
    )
    signer_pb2_grpc.add_SigningServicer_to_server(servicer, server)
    server.add_generic_rpc_handlers(tuple(others))
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise ConfigError(f"can't listen on {socket}", code="bad_socket") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(STOP_GRACE_S)


def _status_of(error: SeipdError) -> grpc.StatusCode:
    if isinstance(error, NotFoundError):
        return grpc.StatusCode.NOT_FOUND
    if isinstance(error, ForbiddenError):
        return grpc.StatusCode.PERMISSION_DENIED
    if isinstance(error, InputError):
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.UNAVAILABLE
