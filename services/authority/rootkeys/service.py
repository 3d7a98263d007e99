"""The root as this server reaches it: signs roster changes where the signer process is at hand."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from services.authority.rootkeys.witnesses import choose_witnesses
from services.base.ledger.author import sign_by_root
from services.kernel.addr import pick_backbone
from services.kernel.certificates import ServerCertificate
from services.kernel.errors import ConflictError, SeipdError, UnavailableError
from services.kernel.ids import b64u_encode
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from services.authority.ports import Json, Ledger
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.kernel.signing import Signer

ROOT_KEY_ID = "root-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A server that asks to be let in."""

    key: bytes
    wireguard_key: bytes
    tls_key_hash: bytes
    region: str


class RootKeysService:
    """Issues server certificates: roster changes that the root signs."""

    name: ClassVar[str] = "root-keys"

    def __init__(self, *, ledger: Ledger, signer: Signer | None, clock: Clock) -> None:
        self._ledger = ledger
        self._signer = signer
        self._clock = clock
        self._turn = asyncio.Lock()
        self._health = Health(state=HealthState.STOPPED)

    async def start(self) -> None:
        """Look whether the signer holds the root key; without it all but joining servers works."""
        if self._signer is None:
            self._health = Health(state=HealthState.OK, detail="the root key is on another server")
            return
        try:
            info = await self._signer.public_key(scope="platform", key_id=ROOT_KEY_ID)
        except SeipdError as error:
            self._health = Health(state=HealthState.DEGRADED, detail=f"signer: {error}")
            return
        if info.public_key not in self._ledger.charter.root_keys:
            detail = "the signer's root key is not this mesh's"
            self._health = Health(state=HealthState.DEGRADED, detail=detail)
            return
        self._health = Health(state=HealthState.OK, detail="the root key is in the signer here")

    async def stop(self) -> None:
        """Nothing to release."""
        self._health = Health(state=HealthState.STOPPED)

    def health(self) -> Health:
        """Say where the root key is."""
        return self._health

    @property
    def holds_root(self) -> bool:
        """Whether this server can ask the signer for the root's signature."""
        return self._signer is not None

    async def prepare_admission(self, candidate: Candidate) -> tuple[ServerCertificate, Record]:
        """Choose a backbone address and a slice for a server; return the signed roster change.

        Nothing is appended: the caller submits the change when the invitation is used up.

        Raises:
            ConflictError: ``key_in_use``; or the backbone range is full.
            UnavailableError: the signer is away, or no slice is left.
        """
        charter = self._ledger.charter
        backbone = pick_backbone(candidate.key, charter.genesis.ranges, charter.backbones())
        slice_text = next(charter.free_slices(), None)
        if backbone is None or slice_text is None:
            raise UnavailableError(
                "no backbone address or slice is left in this mesh", code="pool_exhausted"
            )
        wanted = candidate.wireguard_key
        if any(one.wireguard_key == wanted for one in charter.servers().values()):
            raise ConflictError("this WireGuard key is in use", code="key_in_use")
        certificate = ServerCertificate(
            key=candidate.key,
            wireguard_key=candidate.wireguard_key,
            tls_key_hash=candidate.tls_key_hash,
            region=candidate.region,
            backbone=backbone,
            slices=(slice_text,),
            epoch=1,
        )
        body = {
            "number": charter.number + 1,
            "prev": charter.head,
            "servers": [certificate.value()],
            "removed": [],
            "witnesses": choose_witnesses(
                charter.witnesses_at(charter.number),
                [*charter.servers(), certificate.server_id],
            ),
        }
        return certificate, await self._sign("roster.change", body)

    def turn(self) -> asyncio.Lock:
        """Return the lock under which roster changes are prepared and submitted, one by one."""
        return self._turn

    def describe(self) -> Json:
        """Return the root key chain as far as it goes."""
        genesis = self._ledger.charter.genesis
        return {
            "generation": 1,
            "public_key": b64u_encode(genesis.root_key),
            "fingerprint": self._ledger.mesh_id,
            "state": "active",
            "activated_at": _utc(genesis.activated_ms),
            "expires_at": _utc(genesis.expires_ms),
        }

    async def _sign(self, kind: str, body: Json) -> Record:
        if self._signer is None:
            raise UnavailableError(
                "the root's signer is not on this server",
                code="signer_unavailable",
                mend="invite servers from the server that holds the root key",
            )
        return await sign_by_root(
            self._signer,
            kind=kind,
            body=body,
            key_id=ROOT_KEY_ID,
            public_key=self._ledger.charter.genesis.root_key,
            mesh_id=self._ledger.mesh_id,
            clock=self._clock,
        )


def _utc(time_ms: int) -> str:
    when = datetime.datetime.fromtimestamp(time_ms / 1000, tz=datetime.UTC)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
