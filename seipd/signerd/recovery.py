"""Recovery keys in the signer's process: dealt and forgotten, or rebuilt, used once and forgotten.

A one-time key lives in memory alone: when the signer ends, what was released to it is lost, and the
operators begin again. An offline file is written beside the keys, for the operator to carry away.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import grpc

from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.base.signing import recovery_wire as wire
from services.base.signing.dealing import (
    PURPOSE_CLAIM,
    RecoveryError,
    deal_key,
    dealing_context,
    endorse,
    rebuild_key,
    vouch,
)
from services.base.storage.files import write_atomic
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError, NotFoundError, SeipdError
from services.kernel.ids import b64u_decode, b64u_encode, parse_key, parse_mesh_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

MAX_UNDER_WAY = 4
FILE_KIND = "seipd/recovery-file/v1"


class RecoveryDesk:
    """What the signer does with recovery keys; calls block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._under_way: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()

    def deal(self, request: wire.DealRequest) -> wire.DealReply:
        """Make a recovery key and deal it.

        Raises:
            InputError: malformed.
        """
        dealt = deal_key(
            mesh_id=parse_mesh_id(request.mesh),
            number=request.number,
            threshold=request.threshold,
            holders=[parse_key(one) for one in request.holders],
            random=secrets.token_bytes,
        )
        return wire.DealReply(
            recovery_key=b64u_encode(dealt.dealing.recovery_key),
            signature=b64u_encode(dealt.signature),
            commitments=[b64u_encode(one) for one in dealt.dealing.proof.commitments],
            answer=b64u_encode(dealt.dealing.proof.answer),
            sealed=[b64u_encode(one) for one in dealt.sealed],
        )

    def write(self, request: wire.WriteRequest) -> wire.WriteReply:
        """Make a recovery key and write it to a file.

        Raises:
            InputError: malformed.
            StorageError: the disk refused.
        """
        key, mesh_id = generate_signing_key(), parse_mesh_id(request.mesh)
        context = dealing_context(mesh_id, request.number, key.public_key, 0, ())
        path = self._folder / f"recovery-{request.number}.key"
        value = {
            "kind": FILE_KIND,
            "mesh": mesh_id,
            "number": request.number,
            "recovery_key": b64u_encode(key.public_key),
            "seed": b64u_encode(key.seed),
        }
        write_atomic(path, canonical.encode(value))
        return wire.WriteReply(
            recovery_key=b64u_encode(key.public_key),
            signature=b64u_encode(vouch(key, context)),
            path=str(path),
        )

    def begin(self, request: wire.BeginRequest) -> wire.BeginReply:
        """Make a one-time key for a claim; only the newest few are kept.

        Where the request names one, that one is gone on with.

        Raises:
            InputError: ``bad_claim``.
            NotFoundError: ``recovery_unknown``: the one named is not here, or not for this claim.
        """
        claim = _claim(request.claim)
        if request.one_time_key:
            self._begun(parse_key(request.one_time_key), claim)
            return wire.BeginReply(one_time_key=request.one_time_key)
        private, public = generate_x25519()
        self._under_way[public] = (private, claim)
        while len(self._under_way) > MAX_UNDER_WAY:
            self._under_way.popitem(last=False)
        return wire.BeginReply(one_time_key=b64u_encode(public))

    def finish(self, request: wire.FinishRequest) -> wire.EndorseReply:
        """Rebuild the recovery key, endorse the claim, and forget the key.

        Raises:
            InputError: malformed; ``duplicate_share``.
            NotFoundError: ``recovery_unknown``: no such one-time key, or not for this claim.
            RecoveryError: ``too_few_shares`` or ``key_mismatch``.
        """
        public, claim = parse_key(request.one_time_key), _claim(request.claim)
        private = self._begun(public, claim)
        released = {one.index: b64u_decode(one.sealed) for one in request.released}
        if len(released) != len(request.released):
            raise InputError("two shares have one index", code="duplicate_share")
        dealing = wire.dealing_of(request.dealing)
        rebuilt = rebuild_key(private, released, claim=claim, dealing=dealing)
        signature = endorse(rebuilt.key, claim)
        del self._under_way[public]
        logger.warning("a recovery key endorsed a root key", extra={"bad_shares": rebuilt.bad})
        return wire.EndorseReply(endorsement=b64u_encode(signature), bad=_texts(rebuilt.bad))

    def _begun(self, public: bytes, claim: bytes) -> bytes:
        private, begun = self._under_way.get(public, (b"", b""))
        if begun != claim:
            raise NotFoundError(
                "this signer began no such recovery",
                code="recovery_unknown",
                mend="begin again: the signer forgets what it began when it ends",
            )
        return private

    def endorse(self, request: wire.EndorseRequest) -> wire.EndorseReply:
        """Endorse a claim by the key of an offline file.

        Raises:
            InputError: ``bad_recovery_file``, or malformed.
            ForbiddenError: ``key_mismatch``: the file is of another key.
        """
        claim = _claim(request.claim)
        key = _key_of_file(request.file)
        if key.public_key != parse_key(request.recovery_key):
            raise ForbiddenError(
                "the file is not of the recovery key in force",
                code="key_mismatch",
                mend="bring the newest recovery file",
            )
        logger.warning("the recovery key of an offline file endorsed a root key")
        return wire.EndorseReply(endorsement=b64u_encode(endorse(key, claim)))


def recovery_handlers(desk: RecoveryDesk) -> grpc.GenericRpcHandler[bytes, bytes]:
    """Return the gRPC side of a desk; refusals are told as the signing service tells its own."""
    calls: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
        "Deal": (wire.DealRequest, desk.deal),
        "Write": (wire.WriteRequest, desk.write),
        "Begin": (wire.BeginRequest, desk.begin),
        "Finish": (wire.FinishRequest, desk.finish),
        "Endorse": (wire.EndorseRequest, desk.endorse),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(_answering(kind, call))
        for name, (kind, call) in calls.items()
    }
    return grpc.method_handlers_generic_handler(wire.SERVICE, handlers)


def _answering(
    kind: type[Any], call: Callable[[Any], Any]
) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    async def answer(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            reply = await asyncio.to_thread(call, wire.decode_message(data, kind))
        except SeipdError as error:
            logger.warning("refused", extra={"code": error.code, "call": kind.__name__})
            told: tuple[tuple[str, bytes], ...] = ()
            if isinstance(error, RecoveryError):
                told = ((wire.REFUSAL_KEY, wire.encode_message(refused(error))),)
            status = grpc.StatusCode.FAILED_PRECONDITION
            await context.abort(status, f"{error.code}: {error}", told)
            raise
        return wire.encode_message(reply)

    return answer


def refused(error: RecoveryError) -> wire.EndorseReply:
    """Return what is told where the shares give no recovery key: why, and which were bad."""
    return wire.EndorseReply(
        code=error.code, what=str(error), mend=error.mend, bad=_texts(error.bad)
    )


def _claim(text: str) -> bytes:
    claim = b64u_decode(text)
    if not claim.startswith(PURPOSE_CLAIM):
        raise InputError("a claim begins with its purpose", code="bad_claim")
    return claim


def _key_of_file(text: str) -> SigningKey:
    try:
        value = canonical.decode_object(b64u_decode(text))
        if value["kind"] != FILE_KIND:
            raise InputError("of another kind")
        return SigningKey(parse_key(value["seed"]))
    except (SeipdError, KeyError, TypeError, AttributeError) as error:
        raise InputError("not a recovery file", code="bad_recovery_file") from error


def _texts(bad: dict[int, str]) -> dict[str, str]:
    return {str(index): code for index, code in bad.items()}
