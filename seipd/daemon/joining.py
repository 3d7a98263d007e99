"""``seipd join``: from a token to a certificate, a roster and seed peers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seipd.api.tls import load_tls_identity
from seipd.client.pinning import pinned_context
from seipd.client.problems import error_of
from seipd.client.session import blaming_clock, reach_server
from seipd.client.trust import KnownRoot
from seipd.config.paths import Paths
from seipd.daemon.genesis import save_charter, verify_charter
from seipd.daemon.login import login_server
from seipd.daemon.network import HIDDEN, public_address_of, with_public_address
from seipd.daemon.opening import open_identity
from services.authority.enroll.view import redeem_input
from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.author import Author
from services.base.ledger.statefile import adopt_state
from services.base.storage.files import make_private_dir, write_atomic
from services.base.storage.root import DataRoot
from services.kernel import canonical
from services.kernel.certificates import certificate_from_value
from services.kernel.errors import (
    ConflictError,
    InputError,
    SeipdError,
    UnauthenticatedError,
    WireError,
)
from services.kernel.ids import b64u_decode, b64u_encode
from services.kernel.invitations import Invitation, TokenInvalidError, decode_token
from services.kernel.places import parse_place
from services.kernel.records import record_from_value
from services.mesh.facts.statewords import words_of
from services.mesh.gossip.addresses import Advertisement, sign_fact
from services.mesh.gossip.peers_file import Remembered, save_peers
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.config.model import Settings
    from services.base.keywrap.identity import ServerIdentity
    from services.base.ledger.roster import Charter
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock
    from services.kernel.places import Place
    from services.runtime.outbound import Response

JOIN_TIMEOUT_S = 30.0
BALLOT_TIMEOUT_S = 75.0
ASK_AGAIN_S = 1.0
PENDING = "enrollment_pending"
WAITS = frozenset({PENDING, "rate_limited"})
STATE_TIMEOUT_S = 600.0
MAX_STATE_BYTES = 4 << 30


async def join_mesh(
    settings: Settings,
    token: str,
    region: str | None,
    *,
    from_genesis: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Make this data root a server of the token's mesh.

    Args:
        settings: of this server.
        token: what ``seipd invite server`` printed.
        region: where this server is; as in the settings unless given.
        from_genesis: fold the ledger from its first record instead of beginning with the state
            that the witnesses agree on.
        tell: gets a line for people while the servers vote on this one.

    Returns:
        ``mesh_id``, ``server_id``, ``backbone_address``, ``slices`` and ``begins_with``: the state
        of which time, or the first record and why.

    Raises:
        TokenInvalidError: not a token for a server.
        ConflictError: the data root belongs to a mesh already.
        UntrustedServerError: who answers is not of the token's mesh.
        UnreachableError: none of the token's servers answers.
        SeipdError: what the server refused with.
    """
    invitation = decode_token(token)
    if invitation.role != "server":
        raise TokenInvalidError(
            "this token is for an endpoint", mend="seip join takes it; ask for a server's token"
        )
    clock, paths = SystemClock(), Paths(settings.data_root)
    with DataRoot(settings.data_root):
        if (paths.identity / "root_chain.json").exists():
            raise ConflictError(
                f"{settings.data_root} belongs to a mesh already",
                code="mesh_exists",
                mend="choose another --data-root",
            )
        identity = await asyncio.to_thread(open_identity, settings, paths, create=True)
        joining = _Joining(paths=paths, invitation=invitation, identity=identity)
        return await _join(settings, joining, region, clock, tell, from_genesis=from_genesis)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joining:
    """Who joins by which invitation, and where that is kept."""

    paths: Paths
    invitation: Invitation
    identity: ServerIdentity


async def _join(
    settings: Settings,
    joining: _Joining,
    region: str | None,
    clock: Clock,
    tell: Callable[[str], None],
    *,
    from_genesis: bool,
) -> dict[str, Any]:
    paths, invitation, identity = joining.paths, joining.invitation, joining.identity
    chosen = region or settings.region
    base, trusted = await reach_server(invitation)
    settings = await with_public_address(settings, _stun_servers(settings, invitation))
    tls = load_tls_identity(paths.tls, name=identity.server_id, clock=clock)
    body = {
        "key": b64u_encode(identity.public_key),
        "wireguard_key": b64u_encode(identity.wireguard_public_key),
        "tls_key_hash": b64u_encode(tls.key_hash),
        "region": chosen,
        "record": _redeem_record(invitation, identity, clock),
        "address_fact": _address_fact(settings, joining, chosen, clock),
    }
    context = pinned_context(trusted.authority_pem)
    async with HttpClient(tls=context) as client:
        with blaming_clock(trusted.clock_ahead_ms):
            answer = await _ask_to_join(client, base, body, clock, tell)
        charter, joined = _accept(answer.json(), joining, chosen)
        if from_genesis:
            return {**joined, "begins_with": "the first record, as asked"}
        source = trusted.certificate
        begins_with = await _begin_with_state(client, base, source, charter, joining)
    return {**joined, "begins_with": begins_with}


def _stun_servers(settings: Settings, invitation: Invitation) -> list[Place]:
    """Return where the servers that are joined answer STUN: at the port of ours."""
    found: list[Place] = []
    for address in invitation.addresses:
        with contextlib.suppress(InputError):
            found.append((parse_place(address)[0], settings.stun_port))
    return found


async def _ask_to_join(
    client: HttpClient, base: str, body: dict[str, Any], clock: Clock, tell: Callable[[str], None]
) -> Response:
    """Ask to be let in; where tier 1 votes on it, ask on until it has decided.

    Raises:
        SeipdError: what the server refused with, a time-out of the vote included.
    """
    url, told = f"{base}/api/servers/join", ""
    deadline_s = clock.monotonic_s() + BALLOT_TIMEOUT_S
    while True:
        answer = await client.fetch("POST", url, json=body, timeout_s=JOIN_TIMEOUT_S)
        if answer.status == 201:
            return answer
        error = error_of(answer)
        if error.code not in WAITS or clock.monotonic_s() > deadline_s:
            raise error
        if error.code == PENDING and str(error) != told:
            told = str(error)
            tell(f"{error}: {error.mend}")
        await asyncio.sleep(ASK_AGAIN_S)


def _address_fact(settings: Settings, joining: _Joining, region: str, clock: Clock) -> str | None:
    """Return what tells where this server is; who is hidden tells once it knows its backbone."""
    if settings.public_address == HIDDEN:
        return None
    advertisement = Advertisement(
        host=public_address_of(settings.public_address, settings.bind_address),
        http_port=settings.http_port,
        wireguard_port=settings.wireguard_port,
        region=region,
    )
    fact = sign_fact(
        joining.identity.signing_key,
        bytes.fromhex(joining.invitation.mesh_id),
        advertisement,
        gossip_port=settings.gossip_port,
        counter=clock.now_ms(),
        now_ms=clock.now_ms(),
    )
    return b64u_encode(fact.encoded)


async def _begin_with_state(
    client: HttpClient,
    base: str,
    source: ServerCertificate,
    charter: Charter,
    joining: _Joining,
) -> str:
    """Take the state that the witnesses agree on; without it the ledger is folded from scratch."""
    identity = joining.identity
    key = identity.signing_key
    mesh_id = charter.genesis.mesh_id
    try:
        token = await login_server(client, base, mesh_id=mesh_id, key=key)
        answer = await client.fetch(
            "GET",
            f"{base}/ledger/state",
            headers={"Authorization": f"Bearer {token}"},
            timeout_s=STATE_TIMEOUT_S,
            max_bytes=MAX_STATE_BYTES,
        )
        if answer.status != 200:
            raise error_of(answer)
        line, _, data = answer.body.partition(b"\n")
        shown = canonical.decode(line)
        facts = shown.get("facts") if isinstance(shown, dict) else None
        if not isinstance(facts, list):
            raise WireError("the state file comes without the witnesses' words")
        words = words_of([b64u_decode(str(fact)) for fact in facts], mesh_id)
        state = await asyncio.to_thread(
            adopt_state,
            data,
            charter=charter,
            words=words,
            source_key=source.key,
            sign=key.sign,
            verify=verify,
        )
    except SeipdError as error:
        return f"the first record: {error}"
    make_private_dir(joining.paths.ledger)
    await asyncio.to_thread(write_atomic, joining.paths.ledger / "state", state)
    return f"the state that the witnesses agree on, from {source.server_id}"


def _redeem_record(
    invitation: Invitation, identity: ServerIdentity, clock: Clock
) -> dict[str, Any]:
    signed = redeem_input(invitation.mesh_id, invitation.invite_id, identity.public_key)
    body = {
        "invite": invitation.invite_id,
        "signature": b64u_encode(SigningKey(invitation.seed).sign(signed)),
        "role": "server",
    }
    author = Author(key=identity.signing_key, mesh_id=invitation.mesh_id, clock=clock)
    return author.record("auth.redeem", body).value()


def _accept(
    answer: Any,  # noqa: ANN401 (JSON)
    joining: _Joining,
    region: str,
) -> tuple[Charter, dict[str, Any]]:
    invitation, identity = joining.invitation, joining.identity
    if not isinstance(answer, dict):
        raise WireError("the server's answer is not an object")
    records = [record_from_value(value) for value in answer["charter"]]
    known = KnownRoot(
        generation=invitation.root_generation, fingerprint=invitation.root_fingerprint
    )
    charter = verify_charter(records, invitation.mesh_id, known)
    certificate = certificate_from_value(answer["certificate"])
    if charter.server(identity.server_id) != certificate or certificate.key != identity.public_key:
        raise UnauthenticatedError("the certificate that came back is not for this server")
    facts = tuple(b64u_decode(fact) for fact in answer["peers"])
    save_peers(joining.paths.peers, Remembered(facts=facts))
    save_charter(joining.paths.identity, records, region)
    return charter, {
        "mesh_id": invitation.mesh_id,
        "server_id": certificate.server_id,
        "backbone_address": certificate.backbone,
        "slices": list(certificate.slices),
    }
