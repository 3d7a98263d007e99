"""The root as this server reaches it: signs roster changes where the signer process is at hand."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from services.authority.rootkeys import rotating
from services.authority.rootkeys.activating import require_activatable
from services.authority.rootkeys.epochs import next_epoch, require_end
from services.authority.rootkeys.revoking import Revocation, require_revocable, revocation
from services.authority.rootkeys.view import PROTOCOL_KIND
from services.authority.rootkeys.witnesses import choose_witnesses
from services.base.ledger.author import sign_by_root
from services.base.ledger.changes import CHANGE_KIND, EpochEnd, Removal
from services.base.ledger.merkle import EMPTY_ROOT
from services.base.ledger.rootwalk import naming_number
from services.kernel.addr import pick_backbone
from services.kernel.certificates import ServerCertificate
from services.kernel.errors import ConflictError, NotFoundError, SeipdError, UnavailableError
from services.kernel.ids import b64u_encode
from services.kernel.records import PLATFORM
from services.kernel.service import Health, HealthState
from services.kernel.versions import known_version, version_in_force

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.authority.ports import Json, Ledger
    from services.base.ledger.rootchain import Generation
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId
    from services.kernel.records import Record
    from services.kernel.signing import Signer

ROOT_KEY_ID = "root-1"
"""Of the first generation, and of one that was recovered or came from elsewhere under that name."""
_HERE = "the root key is in the signer here"


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

    def __init__(
        self,
        *,
        ledger: Ledger,
        signer: Signer | None,
        clock: Clock,
    ) -> None:
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
            await key_id_of(self._signer, self._ledger.charter.chain.newest)
        except NotFoundError:
            self.say_elsewhere()
        except SeipdError as error:
            self._health = Health(state=HealthState.DEGRADED, detail=f"signer: {error}")
        else:
            self.say_here()

    async def stop(self) -> None:
        """Nothing to release."""
        self._health = Health(state=HealthState.STOPPED)

    def health(self) -> Health:
        """Say where the root key is, and whether it is the only one."""
        if self._ledger.charter.fork is not None:
            generation = self._ledger.charter.fork.generation
            detail = f"ROOT_FORK: two keys follow generation {generation} of the root"
            return Health(state=HealthState.DEGRADED, detail=detail)
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
        return certificate, await self.sign_record(CHANGE_KIND, body)

    async def revoke(
        self, server_id: ServerId, *, heir: ServerId | None = None, size: int | None = None
    ) -> Revocation:
        """End a server: of its feed the first ``size`` entries count, all held ones unless told.

        The heir takes the server's slices over in the same change, what is assigned from them
        included. One that was revoked already can be so for a smaller size, or get an heir now.

        Raises:
            NotFoundError: ``unknown_server``: it, or the heir.
            ConflictError: ``last_server``, ``holds_root``, ``already_revoked``, ``size_not_held``,
                ``heir_full`` or ``nothing_to_inherit``.
            InputError: ``bad_heir``.
            UnavailableError: ``signer_unavailable``.
        """
        self.require_signer()
        async with self._turn:
            charter = self._ledger.charter
            require_revocable(charter, server_id, root_holder=self._ledger.server_id)
            found = revocation(charter, self._removal(server_id, size), heir)
            change = await self.sign_record(CHANGE_KIND, found.body(charter))
            await self._ledger.submit([change])
            await self._ledger.name_roster()
            return found

    async def activate(
        self, version: int, *, told: Mapping[str, int | None], force: bool = False
    ) -> str:
        """Bring the next protocol version into force; return the id of the record.

        Args:
            version: the next one.
            told: of every other server the newest version that it says it knows.
            force: leave servers behind that lack it.

        Raises:
            ConflictError: ``bad_version``, ``version_unknown`` or ``version_lacking``.
            UnavailableError: ``signer_unavailable``.
        """
        self.require_signer()
        async with self._turn:
            require_activatable(
                version,
                in_force=version_in_force(self._ledger.state),
                known=known_version(),
                told=told,
                force=force,
            )
            record = await self.sign_record(PROTOCOL_KIND, {"version": version})
            await self._ledger.submit([record])
            return record.id

    async def end_epoch(self, end: EpochEnd, epoch: int) -> None:
        """Let the feed of a server that was restored go on in a new epoch.

        Nothing happens where a change did so already: who asks may not have heard of it.

        Raises:
            NotFoundError: ``unknown_server``.
            ConflictError: ``epoch_over`` or ``another_story``.
            UnavailableError: ``feed_behind``, or ``signer_unavailable``.
        """
        self.require_signer()
        async with self._turn:
            charter = self._ledger.charter
            if charter.ends(end.server_id).get(epoch) == end:
                return
            require_end(charter, end, epoch, self._ledger.feeds().get(end.server_id))
            await self._ledger.submit(
                [await self.sign_record(CHANGE_KIND, next_epoch(charter, end))]
            )
            await self._ledger.name_roster()

    async def end_own_epoch(self, end: EpochEnd) -> Record:
        """Return the signed change by which this server's own feed goes on in a new epoch.

        The caller holds the turn.

        Raises:
            UnavailableError: ``signer_unavailable``.
        """
        return await self.sign_record(CHANGE_KIND, next_epoch(self._ledger.charter, end))

    def turn(self) -> asyncio.Lock:
        """Return the lock under which roster changes are prepared and submitted, one by one."""
        return self._turn

    def describe(self) -> list[Json]:
        """Return the root key chain, the genesis key first.

        Of a generation that a recovery key endorsed ``named_recovery_key`` is the change that had
        named that key: with ``record`` it is what anybody can follow the chain by.
        """
        charter, now_ms = self._ledger.charter, self._clock.now_ms()

        def naming(one: Generation) -> Json | None:
            number = naming_number(charter.chain, one)
            return None if number is None else charter.records[number].value()

        return [
            {
                "generation": one.generation,
                "public_key": b64u_encode(one.public_key),
                "fingerprint": one.fingerprint,
                "state": rotating.state_of(one, charter.chain.newest, now_ms=now_ms),
                "endorsed_by": one.endorser,
                "activated_at": _utc(one.activated_ms),
                "expires_at": _utc(one.expires_ms),
                "closes_at": None if one.closes_ms is None else _utc(one.closes_ms),
                "record": charter.records[one.number].value(),
                "named_recovery_key": naming(one),
            }
            for one in charter.chain.generations
        ]

    def _removal(self, server_id: ServerId, size: int | None) -> Removal:
        before = self._ledger.charter.removal(server_id)
        if size is None and before is not None:
            return before
        certificate = self._ledger.charter.last_certificate(server_id)
        head = self._ledger.feeds().get(server_id)
        held = head.size if head else 0
        wanted = held if size is None else size
        if wanted == 0:
            return Removal(server_id=server_id, size=0, root=EMPTY_ROOT)
        epoch = certificate.epoch if certificate else 0
        root = self._ledger.root_at(server_id, epoch, wanted) if 0 < wanted <= held else None
        if root is None:
            raise ConflictError(
                f"of the feed of {server_id} {held} entries are held here",
                code="size_not_held",
                mend=f"choose a --size of 0 to {held}",
            )
        return Removal(server_id=server_id, size=wanted, root=root)

    def adopt(self, signer: Signer) -> None:
        """Act for the root from now on: a recovery brought it to the signer here."""
        self._signer = signer
        self.say_here()

    def say_here(self) -> None:
        """Tell that the signer here has the root key in force."""
        self._health = Health(state=HealthState.OK, detail=_HERE)

    def say_elsewhere(self) -> None:
        """Tell that the signer here has it not: it was recovered elsewhere, or moved."""
        generation = self._ledger.charter.chain.newest.generation
        detail = (
            f"the signer here does not have the root key of generation {generation}: the root is "
            "on another server by now. Take this signer away, or give it the folder with that key"
        )
        self._health = Health(state=HealthState.DEGRADED, detail=detail)

    def require_signer(self) -> Signer:
        """Return the signer that has the root key.

        Raises:
            UnavailableError: ``signer_unavailable``: it is on another server.
        """
        if self._signer is None:
            raise UnavailableError(
                "the root's signer is not on this server",
                code="signer_unavailable",
                mend="ask the server that holds the root key",
            )
        return self._signer

    async def require_key(self) -> None:
        """Make sure that the signer here has the root key in force.

        Raises:
            NotFoundError: ``no_root_key``: it has another one.
            UnavailableError: ``signer_unavailable``.
        """
        await key_id_of(self.require_signer(), self._ledger.charter.chain.newest)

    async def sign_record(self, kind: str, body: Json) -> Record:
        """Return a record that the root key in force signed; the caller holds the turn.

        Raises:
            ConflictError: ``root_expired`` or ``root_fork``.
            NotFoundError: ``no_root_key``: the signer has another one.
            UnavailableError: ``signer_unavailable``.
        """
        signer, charter = self.require_signer(), self._ledger.charter
        rotating.require_one_chain(charter)
        newest = charter.chain.newest
        if self._clock.now_ms() > newest.expires_ms:
            raise ConflictError(
                f"root generation {newest.generation} has expired",
                code="root_expired",
                mend="seipd root rotate",
            )
        return await sign_by_root(
            signer,
            kind=kind,
            body=body,
            key_id=await key_id_of(signer, newest),
            public_key=newest.public_key,
            mesh_id=self._ledger.mesh_id,
            clock=self._clock,
        )


async def key_id_of(signer: Signer, newest: Generation) -> str:
    """Return the name under which a signer has a root key.

    Raises:
        NotFoundError: ``no_root_key``: it has another one, or none.
        UnavailableError: ``signer_unavailable``.
    """
    for key_id in dict.fromkeys((rotating.root_key_id(newest.generation), ROOT_KEY_ID)):
        try:
            info = await signer.public_key(scope=PLATFORM, key_id=key_id)
        except NotFoundError:
            continue
        if info.public_key == newest.public_key:
            return key_id
    raise NotFoundError(
        f"the signer does not have the root key of generation {newest.generation}",
        code="no_root_key",
        mend="seipd root chain says which one is in force",
    )


def _utc(time_ms: int) -> str:
    when = datetime.datetime.fromtimestamp(time_ms / 1000, tz=datetime.UTC)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
