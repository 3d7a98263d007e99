"""Asks the signer for what it does with recovery keys, over the same socket as for signatures."""

from __future__ import annotations

from services.base.signing import recovery_wire as wire
from services.base.signing.asking import R, ask, unix_address
from services.kernel.errors import NotFoundError, SeipdError

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

    async def _ask(self, call: str, request: wire.Message, kind: type[R]) -> R:
        return await ask(
            self._address,
            f"{wire.SERVICE}/{call}",
            request,
            kind,
            refusals=_REFUSALS,
            timeout_s=TIMEOUT_S,
        )
