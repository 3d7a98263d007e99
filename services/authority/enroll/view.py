"""Invitations: who was asked in, by whom, how often, until when; and what came of it.

    invite/<id>            {customer, expires_ms, key, left, name, record, region, role, server}
    redeemed/<server id>   the invitation that let a server in; the root's roster change follows it

Kinds: ``auth.invite``, ``auth.cancel``, ``auth.redeem``. Only the issuing server redeems, so that
"once" holds through a partition. The token holds an Ed25519 seed, the log its public half; to
redeem is to sign the new key with it, so no secret crosses the wire.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from services.authority.tree.permissions import Capability, require
from services.authority.tree.view import create_endpoint, fields, node_of
from services.kernel import canonical
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import (
    MeshId,
    b64u_encode,
    parse_hostname,
    parse_key,
    parse_label,
    parse_record_id,
    parse_signature,
    parse_wireguard_key,
    server_id_of,
)

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext

PURPOSE_REDEEM = b"seipd/redeem/v1\0"
ROLES = ("endpoint", "server")
MAX_USES = 10_000
MAX_LIFETIME_MS = 366 * 86_400_000

Verify = Callable[[bytes, bytes, bytes], bool]


class _InviteWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    invite: str
    key: str
    role: str
    customer: str | None
    region: str | None
    name: str | None
    expires_ms: int
    uses: int


def redeem_input(mesh_id: MeshId, invite_id: str, key: bytes) -> bytes:
    """Return what an invitation's key signs to let ``key`` in."""
    value = {"invite": invite_id, "key": b64u_encode(key)}
    return PURPOSE_REDEEM + bytes.fromhex(mesh_id) + canonical.encode(value)


def _invite(context: FoldContext, body: dict[str, Any]) -> None:
    try:
        wire = msgspec.convert(body, _InviteWire)
    except msgspec.ValidationError as error:
        raise InputError(f"auth.invite: {error}") from error
    state = context.state
    invite_id = parse_record_id(wire.invite)
    parse_key(wire.key)
    if wire.role not in ROLES or not 1 <= wire.uses <= MAX_USES:
        raise InputError(f"role is endpoint or server, uses 1 to {MAX_USES}")
    if not context.stamp_ms < wire.expires_ms <= context.stamp_ms + MAX_LIFETIME_MS:
        raise InputError("an invitation expires within a year, and not in the past")
    if context.author.key != context.record.actor:
        raise RejectedError("a server issues its own invitations", code="rejected_scope")
    _check_scope(context, wire)
    if state.get("invite", invite_id) is not None:
        raise RejectedError("this invitation exists", code="duplicate_id")
    state.put(
        "invite",
        invite_id,
        {
            "role": wire.role,
            "key": wire.key,
            "customer": wire.customer,
            "region": wire.region,
            "name": wire.name,
            "expires_ms": wire.expires_ms,
            "left": wire.uses,
            "server": context.author.server_id,
            "record": context.record.id,
        },
    )


def _check_scope(context: FoldContext, wire: _InviteWire) -> None:
    if wire.region is not None:
        parse_label(wire.region)
    if wire.role == "server":
        require(context, context.state.get("mesh", "root_node") or "", Capability.OPERATE)
        if wire.customer is not None or wire.name is not None:
            raise InputError("a server's invitation names no customer and no host")
        return
    customer = wire.customer or ""
    if node_of(context.state, customer)["kind"] != "customer":
        raise RejectedError("endpoints are invited below a customer", code="rejected_scope")
    require(context, customer, Capability.OPERATE)
    if wire.name is not None:
        parse_hostname(wire.name)


def _cancel(context: FoldContext, body: dict[str, Any]) -> None:
    (invite_id,) = fields(body, "invite")
    state = context.state
    if state.get("invite", invite_id) is None:
        raise RejectedError("there is no such invitation", code="rejected_orphan")
    require(context, state.get("mesh", "root_node") or "", Capability.OPERATE)
    state.delete("invite", invite_id)


class Redeemer:
    """The applier of ``auth.redeem``; it is handed the one signature verifier."""

    def __init__(self, verify: Verify) -> None:
        self._verify = verify

    def apply(self, context: FoldContext, body: dict[str, Any]) -> None:
        """Let one key in."""
        if body.get("role") == "server":
            invite_id, signature, _ = fields(body, "invite", "signature", "role")
            self._use(context, invite_id, signature, "server")
            context.state.put("redeemed", server_id_of(context.record.actor), invite_id)
            return
        names = ("invite", "signature", "role", "name", "wireguard_key")
        invite_id, signature, _, name, wireguard_key = fields(body, *names)
        parse_hostname(name)
        parse_wireguard_key(wireguard_key)
        invite = self._use(context, invite_id, signature, "endpoint")
        if invite["name"] not in (None, name):
            raise RejectedError(f"this token is for {invite['name']}", code="token_invalid")
        create_endpoint(context, parent=invite["customer"], name=name, wireguard_key=wireguard_key)

    def _use(
        self, context: FoldContext, invite_id: str, signature: str, role: str
    ) -> dict[str, Any]:
        state = context.state
        invite: dict[str, Any] | None = state.get("invite", parse_record_id(invite_id))
        signed = redeem_input(context.mesh_id, invite_id, context.record.actor)
        if (
            invite is None
            or not hmac.compare_digest(invite["role"], role)
            or not self._verify(parse_key(invite["key"]), signed, parse_signature(signature))
            or context.stamp_ms > invite["expires_ms"]
        ):
            raise RejectedError("the token is not valid here", code="token_invalid")
        if invite["server"] != context.author.server_id:
            raise RejectedError("another server issued it", code="rejected_scope")
        if invite["left"] < 1:
            raise RejectedError("the token is used up", code="token_used")
        state.put("invite", invite_id, {**invite, "left": invite["left"] - 1})
        return invite


def appliers(verify: Verify) -> Appliers:
    """Return this view's kinds."""
    return {
        "auth.invite": _invite,
        "auth.cancel": _cancel,
        "auth.redeem": Redeemer(verify).apply,
    }
