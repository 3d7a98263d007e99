"""Asks the signer; checks what comes back before anybody relies on it."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from typing_extensions import override

from services.base.crypto.signatures import verify
from services.base.signing.asking import error_of, refusal_of, unix_address
from services.base.signing.keys_client import GrpcKeys
from services.kernel.errors import (
    ConfigError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SeipdError,
    UnavailableError,
)
from services.kernel.signing import (
    MAX_SIGNATURES_PER_CALL,
    MAX_SIGNED_BYTES,
    KeyRotation,
    PublicKeyInfo,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from services.base.signing.signer_pb2 import SignRequest
    from services.base.signing.signer_pb2_grpc import SigningStub

TIMEOUT_S = 5.0
MAX_REMEMBERED_KEYS = 1024

_REFUSALS: dict[str, type[SeipdError]] = {
    "key_unknown": NotFoundError,
    "key_retired": ForbiddenError,
    "rotation_in_progress": ForbiddenError,
    "caller_unknown": ForbiddenError,
    "purpose_refused": ForbiddenError,
    "wrong_scope": ForbiddenError,
    "bad_key_id": InputError,
    "message_too_long": InputError,
    "provider_unavailable": UnavailableError,
    "audit_unavailable": UnavailableError,
    "caller_busy": UnavailableError,
}


_Waiting = tuple["SignRequest", "asyncio.Future[bytes]"]


class SigningCalls(ABC):
    """The two calls, however the signer is reached.

    A connection lasts for one call: the root signs a few times a day, and a signer that was
    restarted in between is found at once. Who asks while a call is under way is in the next one,
    with all the others.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._keys: dict[tuple[str, str], bytes] = {}
        self._turn = asyncio.Lock()
        self._waiting: list[_Waiting] = []

    @abstractmethod
    def _channel(self) -> grpc.aio.Channel:
        """Open a connection for one call."""

    async def sign(self, canonical_bytes: bytes, *, scope: str, key_id: str) -> bytes:
        """Return a signature that was checked against the key's public half.

        The public half is asked for once: a signer that comes back with another key of the same
        name is not believed.

        Raises:
            ForbiddenError: the signer refuses.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``signer_unavailable``; ``provider_unavailable``, also where the
                signature is not one of that key.
        """
        signature = await self._signed(canonical_bytes, scope, key_id)
        public_key = self._keys.get((scope, key_id))
        if public_key is None:
            public_key = (await self.public_key(scope=scope, key_id=key_id)).public_key
            if len(self._keys) < MAX_REMEMBERED_KEYS:
                self._keys[scope, key_id] = public_key
        if not verify(public_key, canonical_bytes, signature):
            raise UnavailableError(
                "the signer answered with the signature of another key",
                code="provider_unavailable",
                mend="look at the signer's log, and compare its keys.json with a backup",
            )
        return signature

    async def _signed(self, canonical_bytes: bytes, scope: str, key_id: str) -> bytes:
        from services.base.signing.signer_pb2 import SignRequest

        request = SignRequest(canonical_bytes=canonical_bytes, scope=scope, key_id=key_id)
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        mine = request, done
        self._waiting.append(mine)
        try:
            async with self._turn:
                while not done.done():
                    await self._ask_together()
            return await done
        finally:
            done.cancel()
            if mine in self._waiting:
                self._waiting.remove(mine)

    async def _ask_together(self) -> None:
        """Ask for what waits, the first of it at least; who ends meanwhile leaves it to others."""
        taken = _together(self._waiting)
        del self._waiting[: len(taken)]
        try:
            answers = await self._answers([request for request, _ in taken])
        except SeipdError as error:
            answers = [error] * len(taken)
        except BaseException:
            self._waiting[:0] = taken
            raise
        for (_, done), answer in zip(taken, answers, strict=True):
            if done.done():
                continue
            if isinstance(answer, SeipdError):
                done.set_exception(answer)
            else:
                done.set_result(answer)

    async def _answers(self, requests: list[SignRequest]) -> list[bytes | SeipdError]:
        first, *more = requests
        if more:
            # A copy: who waits may be in another call after this one.
            alone, first = first, type(first)()
            first.CopyFrom(alone)
            first.more.extend(more)
        async with self._stub() as stub:
            reply = await stub.Sign(first, timeout=self._timeout_s)
        replies = (reply, *reply.more)
        if len(replies) != len(requests):
            raise UnavailableError("the signer answers something else", code="signer_unavailable")
        return [
            refusal_of(one.refusal, _REFUSALS) if one.refusal else one.signature for one in replies
        ]

    async def public_key(self, *, scope: str, key_id: str) -> PublicKeyInfo:
        """Return the public half of a key.

        Raises:
            NotFoundError: ``key_unknown``.
            UnavailableError: ``signer_unavailable``.
        """
        from services.base.signing import signer_pb2

        request = signer_pb2.PublicKeyRequest(scope=scope, key_id=key_id)
        async with self._stub() as stub:
            reply = await stub.PublicKey(request, timeout=self._timeout_s)
        return PublicKeyInfo(
            public_key=reply.public_key,
            key_id=reply.key_id,
            state=reply.state,
            valid_from_ms=reply.valid_from_ms,
            valid_until_ms=reply.valid_until_ms or None,
        )

    @asynccontextmanager
    async def _stub(self) -> AsyncIterator[SigningStub]:
        import grpc

        from services.base.signing import signer_pb2_grpc

        async with self._channel() as channel:
            try:
                yield signer_pb2_grpc.SigningStub(channel)
            except grpc.aio.AioRpcError as error:
                raise error_of(error, _REFUSALS) from error


def _together(waiting: list[_Waiting]) -> list[_Waiting]:
    """Return those who can be in one call; what is too long is refused in one of its own."""
    taken = list(
        itertools.takewhile(
            lambda one: len(one[0].canonical_bytes) <= MAX_SIGNED_BYTES,
            waiting[:MAX_SIGNATURES_PER_CALL],
        )
    )
    return taken or waiting[:1]


class GrpcSigner(SigningCalls):
    """Reaches a signer at the path of its socket; satisfies RotatingSigner.

    Raises:
        ConfigError: ``bad_signer_address``: not a unix socket. What crosses it is not encrypted.
    """

    def __init__(self, socket: str, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(timeout_s=timeout_s)
        path = socket.removeprefix("unix:").removeprefix("//")
        if "/" not in path or "://" in path:
            raise ConfigError(
                f"not the path of a unix socket: {socket}",
                code="bad_signer_address",
                mend="give its path, for example /var/lib/seipd-signer/run/signer.sock",
            )
        self._address = unix_address(path)
        self._control = GrpcKeys(path)

    @override
    def _channel(self) -> grpc.aio.Channel:
        import grpc

        # Else a channel may inherit the pause after a failure of the one before it.
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.insecure_channel(self._address, options=options)

    async def answers(self) -> bool:
        """Say whether a signer is there; nothing is asked, so nothing is written down."""
        import grpc

        async with self._channel() as channel:
            state = channel.get_state(try_to_connect=True)
            try:
                async with asyncio.timeout(self._timeout_s):
                    while state in {
                        grpc.ChannelConnectivity.IDLE,
                        grpc.ChannelConnectivity.CONNECTING,
                    }:
                        await channel.wait_for_state_change(state)
                        state = channel.get_state(try_to_connect=True)
            except TimeoutError:
                return False
        return bool(state is grpc.ChannelConnectivity.READY)

    async def rotate(
        self, *, scope: str, old_key_id: str, new_key_id: str, opens_at_ms: int, closes_at_ms: int
    ) -> KeyRotation:
        """Have the successor of a key made; satisfies RotatingSigner.

        Raises:
            ConflictError: ``rotation_in_progress`` or ``key_exists``.
            ForbiddenError: ``key_retired``.
            InputError: ``wrong_scope``, ``bad_key_id``, ``bad_window``.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``signer_unavailable``, ``provider_unavailable``.
        """
        return await self._control.rotate(
            scope=scope,
            old_key_id=old_key_id,
            new_key_id=new_key_id,
            opens_at_ms=opens_at_ms,
            closes_at_ms=closes_at_ms,
        )
