"""``seip join`` and ``seip leave``: the two records that an endpoint signs about itself."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from seipd.agent.answer import check_answer
from seipd.agent.discovery.finding import find_servers, own_names
from seipd.agent.discovery.settling import settle
from seipd.agent.private_api import LOST, TIMEOUT_S, PrivateApi
from seipd.agent.proving import Verdict, check_joined
from seipd.agent.reporting import report_lie
from seipd.agent.trustlines import REFUSED
from seipd.client.pinning import pinned_context
from seipd.client.problems import error_of
from seipd.client.session import blaming_clock, reach_server
from services.authority.enroll.view import redeem_input
from services.base.crypto.signatures import SigningKey
from services.base.ledger.author import Author
from services.kernel.errors import (
    ConflictError,
    InputError,
    SeipdError,
    WireError,
)
from services.kernel.ids import MeshId, b64u_encode, parse_hostname
from services.kernel.invitations import TokenInvalidError, decode_token
from services.mesh.proofs.errors import RefusedError
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from seipd.agent.serverlist import KnownServer
    from seipd.agent.state import AgentKeys, AgentState
    from services.kernel.invitations import Invitation

LEAVE_WITHIN_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What ``mesh.json`` holds after a join, and why the server is another than the token's."""

    mesh: dict[str, Any]
    why: str = ""


async def join(
    state: AgentState,
    token: str,
    name: str | None,
    *,
    domain: str | None = None,
    region: str | None = None,
) -> Joined:
    """Join the mesh of a token; asked again with the same token it answers the same.

    Without a name of its own choice the machine takes the token's, else its own. Where it knows the
    mesh's domain it finds the servers by that, and goes to the best of them.

    Raises:
        TokenInvalidError: not a token for an endpoint.
        ConflictError: this machine is in a mesh already.
        UntrustedServerError: who answers is not of the token's mesh.
        RefusedError: the keys or the record that it shows are false.
        UnreachableError: the server does not answer.
        WireError: its answer is not good.
        SeipdError: what the server refused with.
    """
    invitation = decode_token(token)
    if invitation.role != "endpoint":
        raise TokenInvalidError(
            "this token is for a server", mend="seipd join takes it; ask for an endpoint's token"
        )
    if state.joined:
        raise ConflictError(
            "this machine is in a mesh already", code="already_joined", mend="seip leave first"
        )
    wanted = name or invitation.name
    hostname = parse_hostname(wanted) if wanted else own_hostname()
    keys = state.keys(create=True)
    signed = redeem_input(invitation.mesh_id, invitation.invite_id, keys.identity.public_key)
    body = {
        "invite": invitation.invite_id,
        "signature": b64u_encode(SigningKey(invitation.seed).sign(signed)),
        "role": "endpoint",
        "name": hostname,
        "wireguard_key": b64u_encode(keys.wireguard_public),
    }
    author = Author(key=keys.identity, mesh_id=invitation.mesh_id, clock=SystemClock())
    record = author.record("auth.redeem", body)
    found, no_dns = await _find(domain, region, invitation)
    base, trusted = await reach_server(_with_found(invitation, found))
    with blaming_clock(trusted.clock_ahead_ms):
        context = pinned_context(trusted.authority_pem)
        async with HttpClient(tls=context) as client:
            answer = await client.fetch("POST", f"{base}/api/join", json={"record": record.value()})
        if answer.status != 201:
            raise error_of(answer)
        value: dict[str, Any] = answer.json()
        check_answer(value)
        if value["server"]["server_id"] != invitation.server_id:
            raise WireError("the server's answer is not about this join")
        mesh = {
            **value,
            "authority_pem": trusted.authority_pem,
            "certificate": trusted.change.value(),
            "chain": [one.value() for one in trusted.chain],
            "mesh_id": invitation.mesh_id,
        }
        await _check(mesh, keys, invitation.addresses)
    state.save_mesh(mesh)
    if not found:
        return Joined(mesh=mesh, why=no_dns)
    if value["domain"] != domain:
        return Joined(mesh=mesh, why=f"this token is of {value['domain']}, not of {domain}")
    why = await settle(state, found)
    return Joined(mesh=state.mesh(), why=why)


async def _find(
    domain: str | None, region: str | None, invitation: Invitation
) -> tuple[list[KnownServer], str]:
    """Return the servers that the domain leads to, or why there are none: the token may do."""
    if domain is None:
        return [], ""
    wanted = invitation.server_id
    try:
        found = await find_servers(domain, names=own_names(), region=region, wanted=wanted)
    except SeipdError as error:
        return [], f"{domain}: {error}"
    return found, ""


def _with_found(invitation: Invitation, found: list[KnownServer]) -> Invitation:
    """Return the token with where DNS says that its server is, after where it says so itself."""
    more = [place for one in found if one.server_id == invitation.server_id for place in one.places]
    addresses = dict.fromkeys((*invitation.addresses, *more))
    return replace(invitation, addresses=tuple(addresses))


async def _check(mesh: dict[str, Any], keys: AgentKeys, addresses: tuple[str, ...]) -> None:
    """Check the keys and the record that a join answered; tell other servers where they lie."""
    try:
        check_joined(mesh, keys)
    except RefusedError as error:
        verdict = Verdict(state=REFUSED, code=error.code, why=str(error))
        known = {**mesh, "server": {**mesh["server"], "addresses": addresses}}
        now_ms = SystemClock().now_ms()
        await report_lie(
            known, keys, subject=mesh["server"]["server_id"], verdict=verdict, now_ms=now_ms
        )
        raise


async def leave(state: AgentState) -> None:
    """Take this endpoint out of the mesh; its address is free again. The state stays.

    The server drops the tunnel as soon as it has the record, now and then before its answer went
    through: who hears nothing asks again, at the public address, whether it is out.

    Raises:
        UnreachableError: the server can't be reached; nothing was changed.
    """
    mesh, keys = state.mesh(), state.keys()
    author = Author(key=keys.identity, mesh_id=MeshId(mesh["mesh_id"]), clock=SystemClock())
    record = author.record("tree.remove", {"node": mesh["node_id"]})
    for timeout_s in (LEAVE_WITHIN_S, TIMEOUT_S):
        async with PrivateApi(mesh, keys) as api:
            try:
                await api.call(
                    "POST", "/api/tree/delta", {"record": record.value()}, timeout_s=timeout_s
                )
            except SeipdError as error:
                if error.code in ("revoked", "rejected_orphan"):
                    break
                if not isinstance(error, LOST):
                    raise
                if timeout_s == TIMEOUT_S:
                    raise type(error)(
                        f"the server can't be told: {error}",
                        code=error.code,
                        mend="sudo seip up first: it is told through the tunnel",
                    ) from error
            else:
                break


def own_hostname() -> str:
    """Return this machine's name as a hostname of the mesh.

    Raises:
        InputError: nothing is left of it that can be one.
    """
    text = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")
    try:
        return parse_hostname(text)
    except InputError as error:
        raise InputError(
            "this machine's name can't be a hostname", code="bad_name", mend="say --name HOST"
        ) from error
