"""The gRPC side of the signer: requests to the core and back, refusals as stable strings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import grpc
from typing_extensions import override

from services.base.signing import signer_pb2, signer_pb2_grpc
from services.kernel.errors import ForbiddenError, InputError, NotFoundError, SeipdError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from seipd.signerd.core import KeyTable
    from seipd.signerd.providers.base import KeyProvider

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 500
MAX_MESSAGE_BYTES = 32 * 1024
STOP_GRACE_S = 1.0


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
        try:
            row = self._table.may_sign(request.scope, request.key_id, request.canonical_bytes)
            signature = await asyncio.to_thread(
                self._provider.sign, row.handle, request.canonical_bytes
            )
        except SeipdError as error:
            await _refuse(context, error)
            raise
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
            await _refuse(context, error)
            raise
        return signer_pb2.PublicKeyReply(
            public_key=row.public_key, key_id=row.key_id, state=row.state.value
        )


@contextlib.asynccontextmanager
async def serve(servicer: SigningServicer, socket: Path) -> AsyncIterator[None]:
    """Serve on a unix socket while the context lasts."""
    server = grpc.aio.server(
        maximum_concurrent_rpcs=MAX_IN_FLIGHT,
        options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)],
    )
    signer_pb2_grpc.add_SigningServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(STOP_GRACE_S)


async def _refuse(context: grpc.aio.ServicerContext, error: SeipdError) -> None:  # type: ignore[type-arg]
    status = grpc.StatusCode.UNAVAILABLE
    if isinstance(error, NotFoundError):
        status = grpc.StatusCode.NOT_FOUND
    elif isinstance(error, ForbiddenError):
        status = grpc.StatusCode.PERMISSION_DENIED
    elif isinstance(error, InputError):
        status = grpc.StatusCode.INVALID_ARGUMENT
    logger.info("refused: %s", error.code)
    await context.abort(status, f"{error.code}: {error}")
