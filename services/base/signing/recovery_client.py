"""Asks the signer for what it does with recovery keys, over the same socket as for signatures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from services.base.signing import recovery_wire as wire
from services.kernel.errors import InputError, NotFoundError, SeipdError, UnavailableError

if TYPE_CHECKING:
    import grpc

TIMEOUT_S = 30.0

_R = TypeVar("_R", bound=wire.Message)
_REFUSALS: dict[str, type[SeipdError]] = {"recovery_unknown": NotFoundError}


class GrpcRecovery:
    """Reaches a signer at the path of its socket; satisfies RecoverySigner."""

    def __init__(self, socket: str) -> None:
        self._address = f"unix:{Path(socket.removeprefix('unix:')).absolute()}"

    async def deal(self, request: wire.DealRequest) -> wire.DealReply:
        """Have a recovery key made and dealt.

        Raises:
            InputError: the signer refuses.
            UnavailableError: ``signer_unavailable``.
        """
        return await self._ask("Deal", request, wire.DealReply)

    async def write(self, request: wire.WriteRequest) -> wire.WriteReply:
        """Have a recovery key made and written to a file.

        Raises:
            InputError: the signer refuses.
            UnavailableError: ``signer_unavailable``.
        """
        return await self._ask("Write", request, wire.WriteReply)

    async def begin(self, request: wire.BeginRequest) -> wire.BeginReply:
        """Have a one-time key made.

        Raises:
            InputError: the signer refuses.
            UnavailableError: ``signer_unavailable``.
        """
        return await self._ask("Begin", request, wire.BeginReply)

    async def finish(self, request: wire.FinishRequest) -> wire.EndorseReply:
        """Have a recovery key rebuilt and used.

        Raises:
            InputError: the signer refuses.
            NotFoundError: ``recovery_unknown``.
            UnavailableError: ``signer_unavailable``.
        """
        return await self._ask("Finish", request, wire.EndorseReply)

    async def endorse(self, request: wire.EndorseRequest) -> wire.EndorseReply:
        """Have the key of an offline file used.

        Raises:
            InputError: the signer refuses.
            UnavailableError: ``signer_unavailable``.
        """
        return await self._ask("Endorse", request, wire.EndorseReply)

    async def _ask(self, call: str, request: wire.Message, kind: type[_R]) -> _R:
        import grpc

        options = [("grpc.max_receive_message_length", wire.MAX_MESSAGE_BYTES)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            ask = channel.unary_unary(
                f"/{wire.SERVICE}/{call}", request_serializer=bytes, response_deserializer=bytes
            )
            try:
                data: bytes = await ask(wire.encode_message(request), timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise _error_of(error) from error
        return wire.decode_message(data, kind)


def _error_of(error: grpc.aio.AioRpcError) -> SeipdError:
    code, colon, what = (error.details() or "").partition(": ")
    if error.code().name == "FAILED_PRECONDITION" and colon:
        return _REFUSALS.get(code, InputError)(what, code=code)
    return UnavailableError(
        "the signer does not answer",
        code="signer_unavailable",
        mend="look at systemctl status seipd-signer, or at the daemon's log",
    )
