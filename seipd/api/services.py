"""What the HTTP handlers may reach: services by the name of what they do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from services.mesh.proofs.report import ReportBook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seipd.api.tls import TlsIdentity
    from services.authority.ballots.service import BallotService
    from services.authority.dnskeys.service import ZoneKeysService
    from services.authority.enroll.service import EnrollService
    from services.authority.governance.service import GovernanceService
    from services.authority.ipam.service import IpamService
    from services.authority.recovery.recovering import RootRecovery
    from services.authority.recovery.service import RecoveryService
    from services.authority.rootkeys.auditing import AuditService
    from services.authority.rootkeys.rotation import RotationService
    from services.authority.rootkeys.service import RootKeysService
    from services.authority.serversecrets.service import SecretsService
    from services.authority.tree.service import TreeService
    from services.authority.trust.enrolments import Enrolments
    from services.authority.trust.service import TrustService
    from services.base.attestation.certifying import CertifiedHere, Certifier
    from services.base.attestation.service import AttestationService
    from services.base.jobs.service import JobsService
    from services.base.ledger.author import Author
    from services.base.ledger.service import LedgerService
    from services.base.ledger.ticks import StateWord
    from services.base.release.service import ReleaseService
    from services.edge.acl.service import AclService
    from services.edge.acme.service import AcmeService
    from services.edge.auth.service import AuthService
    from services.edge.ddns.service import DdnsService
    from services.edge.policy.service import PolicyService
    from services.edge.relaying.offering import RelayOffering
    from services.edge.relaying.service import RelayingService
    from services.kernel.clock import Clock
    from services.kernel.service import Service


class MeshInfo(Protocol):
    """What the daemon knows of itself and of where the servers are."""

    def status(self) -> dict[str, Any]:
        """Return the document of ``seipd status``."""

    def servers(self) -> list[dict[str, Any]]:
        """Return the document of ``seipd servers``."""

    def counters(self) -> Mapping[str, int]:
        """Return what gossip and membership count, under names that are fixed."""

    async def peers(self) -> list[dict[str, Any]]:
        """Return the document of ``seipd peers``."""

    def addresses(self) -> tuple[str, ...]:
        """Return ``host:port`` of public HTTPS servers, this one first."""

    def address_facts(self) -> list[bytes]:
        """Return the signed address facts of the servers known."""

    def agreed_state(self) -> tuple[StateWord, list[bytes]] | None:
        """Return the newest word on the state that the witnesses agree on, and who says so."""

    def learn_address(self, fact: bytes) -> None:
        """Take a server's signed address fact."""

    def wireguard_endpoint(self) -> str:
        """Return ``host:port`` of this server's WireGuard."""

    def wireguard_endpoint6(self) -> str | None:
        """Return the same over IPv6, if this server has such an address for everybody."""

    async def doctor(self) -> list[dict[str, Any]]:
        """Return the findings of ``seipd doctor``."""

    async def nat(self) -> dict[str, Any] | None:
        """Return how this server is seen from outside, if there is somebody to ask."""


class QuoteAudit(Protocol):
    """Whose quotes were refused here."""

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """The services behind the handlers."""

    ledger: LedgerService
    author: Author
    enroll: EnrollService
    governance: GovernanceService
    ballots: BallotService
    tree: TreeService
    ipam: IpamService
    recovery: RecoveryService
    root_recovery: RootRecovery
    root_keys: RootKeysService
    zone_keys: ZoneKeysService
    rotation: RotationService
    audit: AuditService
    trust: TrustService
    attestation: AttestationService
    enrolments: Enrolments
    certified_here: CertifiedHere
    certifier: Certifier
    refused_quotes: QuoteAudit
    release: ReleaseService
    secrets: SecretsService
    auth: AuthService
    acl: AclService
    policy: PolicyService
    ddns: DdnsService
    relays: RelayingService
    relay_offering: RelayOffering
    jobs: JobsService
    acme: AcmeService
    mesh: MeshInfo
    tls: TlsIdentity
    clock: Clock
    all_services: Sequence[Service]
    version: str
    tls_mode: str = "self-signed"
    reports: ReportBook = field(default_factory=ReportBook)
