"""The calls by which this machine has keys made and rotated, and reads the signer's audit."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc

from seipd.signerd.auditing import Asked
from seipd.signerd.rows import KeyRow, Rotation
from seipd.signerd.server import refuse
from services.base.signing import keys_wire as wire
from services.base.signing.recovery_wire import Message, decode_message, encode_message
from services.kernel import canonical
from services.kernel.errors import ConfigError, InputError, SeipdError, UnavailableError
from services.kernel.ids import b64u_encode
from services.kernel.signing import parse_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.signerd.auditlog import AuditLog
    from seipd.signerd.clock import GuardedClock
    from seipd.signerd.desk import Caller, Desk
    from seipd.signerd.server import Context, Handlers
    from seipd.signerd.state import SignerState

logger = logging.getLogger(__name__)

_NO_KEY = "the key provider or the disk failed: look at the signer's log"


class KeyDesk:
    """Make, Rotate, List and Audit; the methods block."""

    def __init__(self, *, state: SignerState, log: AuditLog, clock: GuardedClock) -> None:
        self._state = state
        self._log = log
        self._clock = clock

    def make(self, request: wire.MakeRequest) -> wire.KeyWire:
        """Make a key, unless it is there; raises as SignerState.keygen."""
        now_ms = self._clock.now_ms()
        return _wire_of(
            self._state.keygen(request.scope, request.key_id, request.purposes, now_ms=now_ms)
        )

    def rotate(self, request: wire.RotateRequest) -> wire.RotateReply:
        """Make the successor of a key; raises as SignerState.rotate, and InputError."""
        wanted = Rotation(
            scope=request.scope,
            old_key_id=request.old_key_id,
            new_key_id=request.new_key_id,
            opens_at_ms=request.opens_at_ms,
            closes_at_ms=request.closes_at_ms,
        )
        rotation, new = self._state.rotate(wanted, now_ms=self._clock.now_ms())
        return wire.RotateReply(
            opens_at_ms=rotation.opens_at_ms,
            closes_at_ms=rotation.closes_at_ms,
            new_public_key=b64u_encode(new.public_key),
        )

    def list(self, request: wire.ListRequest) -> wire.ListReply:
        """Tell the keys of a scope, or of all.

        Raises:
            InputError: ``wrong_scope``.
        """
        scope = parse_scope(request.scope) if request.scope else ""
        rows = self._state.table_at(self._clock.now_ms()).rows
        return wire.ListReply(keys=[_wire_of(row) for row in rows if scope in {"", row.scope}])

    def audit(self, request: wire.AuditRequest) -> wire.AuditReply:
        """Read the audit.

        Raises:
            InputError: there are not that many entries.
            NotFoundError: ``no_audit``.
        """
        if not (request.first >= 0 and 1 <= request.count <= wire.MAX_ENTRIES):
            raise InputError(f"1 to {wire.MAX_ENTRIES} entries, from a number on")
        page = self._log.read(request.month, request.first, request.count)
        return wire.AuditReply(
            months=self._log.months(),
            month=page.month,
            vkey=page.vkey,
            checkpoint=page.checkpoint.decode(),
            size=page.size,
            entries=[canonical.decode_object(one) for one in page.entries],
        )


def key_handlers(keys: KeyDesk, desk: Desk, identify: Callable[[Context], Caller]) -> Handlers:
    """Return the gRPC side; each call is written down with the key that it is about."""
    calls: dict[str, tuple[type[Any], Callable[[Any], Message]]] = {
        "Make": (wire.MakeRequest, keys.make),
        "Rotate": (wire.RotateRequest, keys.rotate),
        "List": (wire.ListRequest, keys.list),
        "Audit": (wire.AuditRequest, keys.audit),
    }

    def answering(
        name: str, kind: type[Any], call: Callable[[Any], Message]
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def answer(data: bytes, context: Context) -> bytes:
            request: Any = None

            async def work() -> Message:
                if isinstance(request, SeipdError):
                    raise request
                try:
                    return await asyncio.to_thread(call, request)
                except (ConfigError, UnavailableError) as error:
                    logger.error("no key was made: %s", error, extra={"code": error.code})  # noqa: TRY400 (the error says all)
                    raise UnavailableError(_NO_KEY, code="provider_unavailable") from error

            try:
                request = decode_message(data, kind)
            except SeipdError as error:
                request = error
            asked = _asked(name, identify(context), request)
            try:
                return encode_message(await desk.audited(asked, work))
            except SeipdError as error:
                await refuse(context, error)

        return answer

    return grpc.method_handlers_generic_handler(
        wire.SERVICE,
        {
            name: grpc.unary_unary_rpc_method_handler(answering(name, kind, call))
            for name, (kind, call) in calls.items()
        },
    )


def _asked(name: str, caller: Caller, request: object) -> Asked:
    key_id = getattr(request, "new_key_id", getattr(request, "key_id", ""))
    scope = getattr(request, "scope", "")
    return Asked(call=name.lower(), caller=caller.name, scope=scope, key_id=key_id)


def _wire_of(row: KeyRow) -> wire.KeyWire:
    value = row.value()
    del value["handle"]
    return wire.KeyWire(**value)
