"""The authority layer: addresses, votes, the root, who is let in, and names."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd.daemon.layers.recovering import Recovering, recovering_of
from services.authority.ballots.service import BallotService
from services.authority.dnskeys.service import ZoneKeysService
from services.authority.dnskeys.store import load_zone_key
from services.authority.enroll.service import EnrollService
from services.authority.governance import parameters
from services.authority.governance.service import GovernanceService
from services.authority.ipam.service import IpamService
from services.authority.names.service import NamesService
from services.authority.releases.service import SharedReleases
from services.authority.rootkeys.anchoring import AuditAnchors
from services.authority.rootkeys.auditcopy import AuditCopy
from services.authority.rootkeys.auditing import AuditService
from services.authority.rootkeys.rotating import DAY_MS
from services.authority.rootkeys.rotation import RotationService
from services.authority.rootkeys.seen import RootSeen
from services.authority.rootkeys.service import RootKeysService
from services.authority.tree.service import TreeService
from services.base.signing.keys_client import GrpcKeys

if TYPE_CHECKING:
    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityLayer:
    """What decides; all of it by records."""

    tree: TreeService
    ipam: IpamService
    governance: GovernanceService
    ballots: BallotService
    root_keys: RootKeysService
    rotation: RotationService
    recovering: Recovering
    audit: AuditService
    enroll: EnrollService
    names: NamesService
    zone_keys: ZoneKeysService
    releases: SharedReleases


def authority_of(ground: Ground, base: BaseLayer) -> AuthorityLayer:
    """Make the layer; nothing is started."""
    ledger, author, clock = base.ledger, base.author, ground.clock
    governance = GovernanceService(ledger=ledger, author=author, clock=clock)
    ballots = BallotService(ledger=ledger, author=author, clock=clock)
    ipam = IpamService(ledger=ledger, author=author)
    root_keys = RootKeysService(ledger=ledger, signer=base.signer, clock=clock)
    rotation = rotation_of(ground, base, root_keys)
    recovering = recovering_of(ground, base, root_keys, rotation)
    return AuthorityLayer(
        tree=TreeService(ledger=ledger),
        ipam=ipam,
        governance=governance,
        ballots=ballots,
        root_keys=root_keys,
        rotation=rotation,
        recovering=recovering,
        audit=AuditService(
            copy=AuditCopy(ground.paths.ledger / "audit"),
            source=lambda: keys_at(recovering.host.address),
            anchors=AuditAnchors(ledger=ledger, author=author),
            clock=clock,
        ),
        enroll=EnrollService(
            ledger=ledger,
            author=author,
            allocator=ipam,
            root_keys=root_keys,
            ballots=ballots,
            clock=clock,
        ),
        names=NamesService(ledger=ledger, author=author, rng=secrets.SystemRandom()),
        zone_keys=ZoneKeysService(
            ledger=ledger,
            author=author,
            key=load_zone_key(
                ground.paths.zone_key,
                seed=ground.identity.signing_key.seed,
                mesh_id=ground.mesh_id,
            ),
            root=root_keys,
            maker=lambda: keys_at(recovering.host.address),
            clock=clock,
        ),
        releases=SharedReleases(ledger=ledger, author=author, release=base.release),
    )


def keys_at(address: str | None) -> GrpcKeys | None:
    """Return the calls about keys; a signer on another machine is asked for signatures alone."""
    return GrpcKeys(address) if address is not None and "/" in address else None


def rotation_of(ground: Ground, base: BaseLayer, root_keys: RootKeysService) -> RotationService:
    """Return what rotates the root as often as the mesh has voted, unless a setting says else."""
    settings, ledger = ground.settings, base.ledger

    def interval_ms() -> int:
        if settings.root_rotation_interval_s:
            return int(settings.root_rotation_interval_s * 1000)
        return parameters.number(ledger.state, parameters.ROTATION) * DAY_MS

    rotation = RotationService(
        ledger=ledger,
        root_keys=root_keys,
        rotator=keys_at(base.signer_address),
        interval_ms=interval_ms,
        overlap_ms=int(settings.root_overlap_s * 1000),
        seen=RootSeen(ground.paths.identity / "root_seen.json"),
        clock=ground.clock,
    )
    ledger.refuse_while(rotation.rolled_back)
    return rotation
