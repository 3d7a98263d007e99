"""The gRPC side of the signer: requests to the desk and back, refusals as stable strings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from typing_extensions import override

from seipd.signerd.auditing import Asked
from seipd.signerd.desk import Wanted
from services.base.signing import signer_pb2, signer_pb2_grpc
from services.kernel.errors import (
    ConfigError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SeipdError,
)
from services.kernel.signing import MAX_SIGNATURES_PER_CALL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from seipd.signerd.desk import Caller, Desk

    Context = grpc.aio.ServicerContext[Any, Any]
    Handlers = grpc.GenericRpcHandler[bytes, bytes]
    Answer = Callable[[bytes, Context], Awaitable[bytes]]

MAX_IN_FLIGHT = 256
"""On one listener; no caller has more than a quarter of it."""
MAX_MESSAGE_BYTES = 6 << 20
"""More than is ever signed: what is too long is to be refused by name, and written down."""
STOP_GRACE_S = 1.0
HANDSHAKE_TIMEOUT_MS = 5_000

_STATUS: tuple[tuple[type[SeipdError], grpc.StatusCode], ...] = (
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (ForbiddenError, grpc.StatusCode.PERMISSION_DENIED),
    (InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (ConflictError, grpc.StatusCode.FAILED_PRECONDITION),
)


class SigningServicer(signer_pb2_grpc.SigningServicer):
    """Sign and PublicKey; ``identify`` says who asks, before anything else is looked at."""

    def __init__(self, desk: Desk, identify: Callable[[Context], Caller]) -> None:
        self._desk = desk
        self._identify = identify

    @override
    async def Sign(self, request: signer_pb2.SignRequest, context: Context) -> signer_pb2.SignReply:
        """Sign exactly the bytes given, if the key may."""
        caller = self._identify(context)
        if request.more:
            return await self._sign_several(caller, request, context)
        try:
            signature = await self._desk.sign(
                caller, request.canonical_bytes, scope=request.scope, key_id=request.key_id
            )
        except SeipdError as error:
            await refuse(context, error)
        return signer_pb2.SignReply(signature=signature, key_id=request.key_id)

    async def _sign_several(
        self, caller: Caller, request: signer_pb2.SignRequest, context: Context
    ) -> signer_pb2.SignReply:
        requests = (request, *request.more)
        try:
            if len(requests) > MAX_SIGNATURES_PER_CALL or any(one.more for one in request.more):
                asked = Asked(
                    call="sign", caller=caller.name, scope="", key_id="", is_known=caller.known
                )
                await self._desk.audited(asked, lambda: _too_many(caller))
            wanted = [
                Wanted(data=one.canonical_bytes, scope=one.scope, key_id=one.key_id)
                for one in requests
            ]
            answers = await self._desk.sign_all(caller, wanted)
        except SeipdError as error:
            await refuse(context, error)
        first, *more = map(_reply_of, requests, answers)
        first.more.extend(more)
        return first

    @override
    async def PublicKey(
        self, request: signer_pb2.PublicKeyRequest, context: Context
    ) -> signer_pb2.PublicKeyReply:
        """Tell the public half of a key."""
        caller = self._identify(context)
        try:
            row = await self._desk.public_key(caller, scope=request.scope, key_id=request.key_id)
        except SeipdError as error:
            await refuse(context, error)
        return signer_pb2.PublicKeyReply(
            public_key=row.public_key,
            key_id=row.key_id,
            state=row.state.value,
            valid_from_ms=row.valid_from_ms,
            valid_until_ms=row.valid_until_ms or 0,
        )


async def _too_many(caller: Caller) -> NoReturn:
    caller.require_known()
    raise InputError(
        f"over {MAX_SIGNATURES_PER_CALL} in one call, or one in another", code="bad_field"
    )


def _reply_of(request: signer_pb2.SignRequest, answer: bytes | SeipdError) -> signer_pb2.SignReply:
    if isinstance(answer, SeipdError):
        return signer_pb2.SignReply(key_id=request.key_id, refusal=f"{answer.code}: {answer}")
    return signer_pb2.SignReply(key_id=request.key_id, signature=answer)


class AuditedHandler(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Calls of another service on the same socket, each of them written down."""

    def __init__(
        self,
        inner: Handlers,
        desk: Desk,
        identify: Callable[[Context], Caller],
    ) -> None:
        self._inner = inner
        self._desk = desk
        self._identify = identify

    @override
    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the handler of a call, if it is one of that service."""
        found = self._inner.service(handler_call_details)
        if found is None or found.unary_unary is None:
            return None
        name = handler_call_details.method.rpartition("/")[2].lower()
        call = cast("Answer", found.unary_unary)
        return grpc.unary_unary_rpc_method_handler(self._audited(name, call))

    def _audited(self, name: str, call: Answer) -> Answer:
        async def answer(data: bytes, context: Context) -> bytes:
            asked = Asked(call=name, caller=self._identify(context).name, scope="", key_id="")

            async def work() -> bytes:
                try:
                    return await call(data, context)
                except grpc.aio.AbortError as error:
                    # The call has told its refusal already; here it gets its name for the audit.
                    code = (context.details() or "").partition(":")[0]
                    raise _ToldError("refused", code=code) from error

            try:
                return await self._desk.audited(asked, work)
            except _ToldError as error:
                raise (error.__cause__ or error) from None
            except SeipdError as error:
                await refuse(context, error)

        return answer


class _ToldError(SeipdError):
    """A refusal that the caller was told."""


async def refuse(context: Context, error: SeipdError) -> NoReturn:
    """End a call with the code of an error, first and followed by a colon."""
    await context.abort(_status_of(error), f"{error.code}: {error}")
    raise error


@contextlib.asynccontextmanager
async def serve(
    servicer: signer_pb2_grpc.SigningServicer,
    socket: Path,
    *,
    others: Sequence[Handlers] = (),
) -> AsyncIterator[None]:
    """Serve on a unix socket while the context lasts; ``others`` stand beside the two calls.

    Raises:
        ConfigError: ``bad_socket``: the socket can't be made there.
    """
    server = new_server(servicer)
    server.add_generic_rpc_handlers(tuple(others))
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise ConfigError(f"can't listen on {socket}", code="bad_socket") from error
    async with running(server):
        yield


def new_server(servicer: signer_pb2_grpc.SigningServicer) -> grpc.aio.Server:
    """Return a server of the two calls, with its limits, that listens nowhere yet."""
    server = grpc.aio.server(
        maximum_concurrent_rpcs=MAX_IN_FLIGHT,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
            # A second signer on the port must fail, not take its share of the calls.
            ("grpc.so_reuseport", 0),
        ],
    )
    signer_pb2_grpc.add_SigningServicer_to_server(servicer, server)
    return server


@contextlib.asynccontextmanager
async def running(server: grpc.aio.Server) -> AsyncIterator[None]:
    """Let a server run while the context lasts."""
    await server.start()
    try:
        yield
    finally:
        await server.stop(STOP_GRACE_S)


def _status_of(error: SeipdError) -> grpc.StatusCode:
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return grpc.StatusCode.UNAVAILABLE
