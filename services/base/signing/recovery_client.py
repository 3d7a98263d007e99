"""Asks the signer for what it does with recovery keys, over the same socket as for signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from services.base.signing import recovery_wire as wire
from services.base.signing.asking import R, ask, unix_address
from services.kernel.errors import NotFoundError, SeipdError

if TYPE_CHECKING:
    from collections.abc import Iterable

TIMEOUT_S = 30.0

_REFUSALS: dict[str, type[SeipdError]] = {"recovery_unknown": NotFoundError}


class GrpcRecovery:
    """Reaches a signer at the path of its socket; satisfies RecoverySigner."""

    def __init__(self, socket: str) -> None:
        self._address = unix_address(socket)

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
        """Have a one-time key made, or learn whether the one that is named is there still.

        Raises:
            InputError: the signer refuses.
            NotFoundError: ``recovery_unknown``: it is not.
            UnavailableError: ``signer_unavailable``.
        """
        return await self._ask("Begin", request, wire.BeginReply)

    async def finish(self, request: wire.FinishRequest) -> wire.EndorseReply:
        """Have a recovery key rebuilt and used; where it can't be, the reply says why.

        Raises:
            InputError: the signer refuses.
            NotFoundError: ``recovery_unknown``.
            UnavailableError: ``signer_unavailable``.
        """
        try:
            return await self._ask("Finish", request, wire.EndorseReply)
        except SeipdError as error:
            if (told := _told_with(error.__cause__)) is None:
                raise
            return wire.decode_message(told, wire.EndorseReply)

    async def endorse(self, request: wire.EndorseRequest) -> wire.EndorseReply:
        """Have the key of an offline file used.

        Raises:
            InputError: the signer refuses.
            UnavailableError: ``signer_unavailable``.
        """
        return await self._ask("Endorse", request, wire.EndorseReply)

    async def _ask(self, call: str, request: wire.Message, kind: type[R]) -> R:
        return await ask(
            self._address,
            f"{wire.SERVICE}/{call}",
            request,
            kind,
            refusals=_REFUSALS,
            timeout_s=TIMEOUT_S,
        )


def _told_with(error: BaseException | None) -> bytes | None:
    """Return what a refusal tells beside its code."""
    import grpc

    if not isinstance(error, grpc.aio.AioRpcError):
        return None
    pairs = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    told = dict(pairs).get(wire.REFUSAL_KEY)
    return told if isinstance(told, bytes) else None
