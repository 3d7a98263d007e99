"""One call to a service of the signer that speaks canonical JSON, over its unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from services.base.signing.recovery_wire import Message, decode_message, encode_message
from services.kernel.errors import InputError, SeipdError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc

R = TypeVar("R", bound=Message)

MAX_REPLY_BYTES = 4 << 20


def unix_address(socket: str) -> str:
    """Return the gRPC address of a unix socket's path."""
    path = socket.removeprefix("unix:").removeprefix("//")
    return f"unix:{Path(path).absolute()}"


async def ask(
    address: str,
    method: str,
    request: Message,
    kind: type[R],
    *,
    refusals: Mapping[str, type[SeipdError]],
    timeout_s: float,
) -> R:
    """Return the answer to a call.

    Raises:
        SeipdError: the signer refuses: of the kind that stands beside its code, else InputError.
        UnavailableError: ``signer_unavailable``.
    """
    import grpc

    options = [("grpc.max_receive_message_length", MAX_REPLY_BYTES)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(
            f"/{method}", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            data: bytes = await call(encode_message(request), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_of(error, refusals) from error
    return decode_message(data, kind)


def error_of(error: grpc.aio.AioRpcError, refusals: Mapping[str, type[SeipdError]]) -> SeipdError:
    """Tell a refusal of the signer, which begins with its code, from a signer that is not there."""
    code, colon, what = (error.details() or "").partition(": ")
    if code in refusals:
        return refusal_of(error.details() or "", refusals)
    if error.code().name in {"INVALID_ARGUMENT", "FAILED_PRECONDITION"} and colon:
        return InputError(what, code=code)
    return UnavailableError(
        "the signer does not answer",
        code="signer_unavailable",
        mend="look at systemctl status seipd-signer, or at the daemon's log",
    )


def refusal_of(details: str, refusals: Mapping[str, type[SeipdError]]) -> SeipdError:
    """Return the error that a refusal of the signer means; one that is not known is a fault."""
    code, _, what = details.partition(": ")
    return refusals.get(code, UnavailableError)(what, code=code)
