"""Lets machines in: makes invitations, redeems them for endpoints and for servers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from services.authority.enroll.view import redeem_input
from services.base.crypto.signatures import SigningKey, verify
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    UnauthenticatedError,
)
from services.kernel.ids import (
    MeshId,
    b64u_decode,
    b64u_encode,
    node_id_of,
    parse_hostname,
    parse_key,
    parse_label,
    parse_wireguard_key,
    server_id_of,
)
from services.kernel.invitations import Invitation, encode_token
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from services.authority.ballots.service import BallotService
    from services.authority.ports import Allocator, Json, Ledger
    from services.authority.rootkeys.service import Candidate, RootKeysService
    from services.base.ledger.author import Author
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock
    from services.kernel.records import Record

DEFAULT_CUSTOMER = "default"
MIN_EXPIRY_S = 10
MAX_EXPIRY_S = 365 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an operator asks an invitation for."""

    role: str
    customer: str = DEFAULT_CUSTOMER
    region: str | None = None
    name: str | None = None
    expires_s: int = 3600
    uses: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """An invitation as its operator gets it; the token is shown once and kept nowhere."""

    token: str
    invite_id: str
    expires_ms: int


class EnrollService:
    """The door of the mesh on this server."""

    name: ClassVar[str] = "enroll"

    def __init__(
        self,
        *,
        ledger: Ledger,
        author: Author,
        allocator: Allocator,
        root_keys: RootKeysService,
        ballots: BallotService,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._allocator = allocator
        self._root_keys = root_keys
        self._ballots = ballots
        self._clock = clock

    async def start(self) -> None:
        """Nothing to acquire."""

    async def stop(self) -> None:
        """Nothing to release."""

    def health(self) -> Health:
        """It is as well as the ledger is."""
        return Health(state=HealthState.OK)

    async def invite(self, wanted: Wanted, *, addresses: tuple[str, ...]) -> Issued:
        """Make an invitation.

        Raises:
            InputError: a name, region, expiry or number of uses that can't be.
            NotFoundError: no such customer.
        """
        if wanted.role not in ("endpoint", "server"):
            raise InputError("an invitation is for a server or an endpoint")
        if not MIN_EXPIRY_S <= wanted.expires_s <= MAX_EXPIRY_S:
            raise InputError(f"an invitation expires in {MIN_EXPIRY_S} s to a year")
        endpoint = wanted.role == "endpoint"
        seed = SigningKey(secrets.token_bytes(32))
        invite_id = secrets.token_hex(16)
        expires_ms = self._clock.now_ms() + wanted.expires_s * 1000
        name = parse_hostname(wanted.name) if wanted.name and endpoint else None
        body = {
            "invite": invite_id,
            "key": b64u_encode(seed.public_key),
            "role": wanted.role,
            "customer": self.customer_id(wanted.customer) if endpoint else None,
            "region": parse_label(wanted.region) if wanted.region else None,
            "name": name,
            "expires_ms": expires_ms,
            "uses": wanted.uses,
        }
        await self._ledger.submit([self._author.record("auth.invite", body)])
        newest = self._ledger.charter.chain.newest
        token = encode_token(
            Invitation(
                mesh_id=self._ledger.mesh_id,
                root_fingerprint=newest.fingerprint,
                root_generation=newest.generation,
                role=wanted.role,
                invite_id=invite_id,
                server_id=self._ledger.server_id,
                addresses=addresses,
                seed=seed.seed,
                name=name,
            )
        )
        return Issued(token=token, invite_id=invite_id, expires_ms=expires_ms)

    def customer_id(self, name: str) -> str:
        """Return the node id of a customer by its name below the root.

        Raises:
            NotFoundError: there is none.
        """
        root = self._ledger.state.get("mesh", "root_node")
        node_id: str | None = self._ledger.state.get("name", f"{root}/{parse_label(name)}")
        if node_id is None:
            raise NotFoundError(
                f"there is no customer {name}", mend=f"seipd tree add {name} makes one"
            )
        return node_id

    async def redeem_endpoint(self, record: Record) -> Json:
        """Let an endpoint in by the ``auth.redeem`` record that its own key signed.

        Asked again with the same keys it answers the same: nothing is allocated twice.

        Returns:
            The endpoint's node, with its ``address``.

        Raises:
            UnauthenticatedError: the token is not valid here.
            ConflictError: ``token_used``, ``key_in_use`` or ``name_in_use``.
            PoolExhaustedError: no address is left.
        """
        if record.kind != "auth.redeem" or record.body.get("role") != "endpoint":
            raise InputError("an endpoint joins with an auth.redeem record")
        node_id = node_id_of(record.actor)
        if (known := self._already_in(node_id, record)) is not None:
            return known
        self._check_endpoint(record)
        address = self._allocator.pick()
        assign = self._author.record("ipam.assign", {"node": node_id, "address": address})
        try:
            await self._ledger.submit([record, assign])
        except BaseException:
            self._allocator.give_back(address)
            raise
        node: Json = self._ledger.state.get("tree", node_id)
        return {"node_id": node_id, **node}

    async def attach(self, record: Record) -> Json:
        """Carry an endpoint from now on, by the ``tree.attach`` record that its own key signed.

        Asked again with the same record it answers the same.

        Returns:
            The endpoint's node.

        Raises:
            InputError: no such record, or it names another server.
            ForbiddenError: ``bad_signature``.
            UnauthenticatedError: ``revoked``: the mesh knows no such endpoint.
            RejectedError: ``stale``: it moved since.
        """
        if record.kind != "tree.attach" or record.body.get("server") != self._ledger.server_id:
            raise InputError("an endpoint moves with a tree.attach record that names this server")
        self._require_signed(record)
        node_id = node_id_of(record.actor)
        node: Json | None = self._ledger.state.get("tree", node_id)
        if node is None or record.body.get("node") != node_id or "address" not in node:
            raise UnauthenticatedError("this key is not in the mesh", code="revoked")
        moved = {**node, "at": record.body["server"], "moves": record.body.get("moves")}
        if moved != node:
            await self._ledger.submit([record])
        return {"node_id": node_id, **moved}

    async def admit_server(
        self, candidate: Candidate, *, invite_id: str, signature: str, redeem: Record
    ) -> ServerCertificate:
        """Let a server in: use up its invitation, then append the roster change that names it.

        Where the mesh asks tier 1 first, the answer may be to ask again: see ``BallotService``.

        Raises:
            UnauthenticatedError: the token is not valid here.
            ForbiddenError: ``bad_signature``, ``revoked``, ``enrollment_denied`` or
                ``enrollment_refused``.
            NotFoundError: ``no_root_key``: the signer here has another one.
            UnavailableError: the signer is away, or the mesh is full; ``enrollment_pending``,
                ``enrollment_timeout``.
        """
        if redeem.actor != candidate.key or redeem.kind != "auth.redeem":
            raise InputError("a server joins with an auth.redeem record of its own key")
        self._verify_token(invite_id, signature, candidate.key, "server")
        self._require_signed(redeem)
        server_id = server_id_of(candidate.key)
        if self._ledger.charter.removal(server_id) is not None:
            raise ForbiddenError(
                "this identity was revoked for good",
                code="revoked",
                mend="join with another data root, as a new server",
            )
        is_new = self._ledger.charter.server(server_id) is None
        if is_new:
            # Nobody votes, and no try is used up, where the certificate can't be signed.
            await self._root_keys.require_key()
            await self._ballots.require_approval(_newcomer(candidate, invite_id, redeem))
        async with self._root_keys.turn():
            known = self._ledger.charter.server(server_id)
            if known is not None:
                return self._same_server(known, candidate)
            certificate, change = await self._root_keys.prepare_admission(candidate)
            if self._ledger.state.get("redeemed", server_id) != invite_id:
                await self._ledger.submit([redeem])
            await self._ledger.submit([change])
            await self._ledger.name_roster()
            return certificate

    def _same_server(self, known: ServerCertificate, candidate: Candidate) -> ServerCertificate:
        if (known.wireguard_key, known.tls_key_hash) != (
            candidate.wireguard_key,
            candidate.tls_key_hash,
        ):
            raise ConflictError("this identity key is in the mesh", code="key_in_use")
        return known

    def _already_in(self, node_id: str, record: Record) -> Json | None:
        node: Json | None = self._ledger.state.get("tree", node_id)
        if node is None:
            return None
        if node.get("wireguard_key") != record.body.get("wireguard_key") or "address" not in node:
            raise ConflictError("this key is enrolled already", code="key_in_use")
        self._require_signed(record)
        return {"node_id": node_id, **node}

    def _require_signed(self, record: Record) -> None:
        signed = record.signed_bytes(self._ledger.mesh_id)
        if not verify(record.actor, signed, record.actor_sig):
            raise ForbiddenError("the record's signature is wrong", code="bad_signature")

    def _check_endpoint(self, record: Record) -> None:
        body = record.body
        invite = self._verify_token(
            body.get("invite"), body.get("signature"), record.actor, "endpoint"
        )
        name = parse_hostname(str(body.get("name", "")))
        wireguard_key = str(body.get("wireguard_key", ""))
        parse_wireguard_key(wireguard_key)
        servers = self._ledger.charter.servers().values()
        if any(b64u_encode(one.wireguard_key) == wireguard_key for one in servers):
            raise ConflictError("a server holds this WireGuard key", code="key_in_use")
        if invite["left"] < 1:
            raise ConflictError(
                "the token is used up", code="token_used", mend="ask for a new invitation"
            )
        if self._ledger.state.get("name", f"{invite['customer']}/{name}") is not None:
            raise ConflictError(
                f"another machine is called {name}",
                code="name_in_use",
                mend="choose another with --name",
            )

    def _verify_token(self, invite_id: object, signature: object, key: bytes, role: str) -> Json:
        invite: Json | None = None
        if isinstance(invite_id, str) and isinstance(signature, str):
            invite = self._ledger.state.get("invite", invite_id)
        good = (
            invite is not None
            and invite["role"] == role
            and invite["server"] == self._ledger.server_id
            and invite["expires_ms"] >= self._clock.now_ms()
            and _signature_good(invite, self._ledger.mesh_id, str(invite_id), key, str(signature))
        )
        if invite is None or not good:
            raise UnauthenticatedError(
                "the token is not valid here: expired, altered, or of another mesh or role",
                code="token_invalid",
                mend="ask for a new invitation",
            )
        return invite


def _newcomer(candidate: Candidate, invite_id: str, redeem: Record) -> Json:
    return {
        "ask": redeem.id,
        "invite": invite_id,
        "key": b64u_encode(candidate.key),
        "wireguard_key": b64u_encode(candidate.wireguard_key),
        "tls_key_hash": b64u_encode(candidate.tls_key_hash),
        "region": candidate.region,
    }


def _signature_good(invite: Json, mesh_id: MeshId, invite_id: str, key: bytes, text: str) -> bool:
    try:
        signature = b64u_decode(text)
    except InputError:
        return False
    return verify(parse_key(invite["key"]), redeem_input(mesh_id, invite_id, key), signature)
