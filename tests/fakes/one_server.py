"""One server's ledger and API in this process: real services, a signer that is a key in memory."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from seipd.api.server import PRIVATE_ROUTES, PUBLIC_ROUTES, build_app
from seipd.api.services import ApiServices
from seipd.api.tls import load_tls_identity
from seipd.daemon.genesis import MeshFacts, found_mesh, write_first_records
from seipd.daemon.refused_quotes import RefusedQuotes
from services.authority.ballots.service import BallotService
from services.authority.dnskeys.service import ZoneKeysService
from services.authority.enroll import view as enroll_view
from services.authority.enroll.service import EnrollService, Wanted
from services.authority.governance.parameters import TIER1_UPTIME
from services.authority.governance.service import GovernanceService
from services.authority.ipam.service import IpamService
from services.authority.recovery.recovering import RootRecovery
from services.authority.recovery.service import RecoveryService
from services.authority.rootkeys.anchoring import AuditAnchors
from services.authority.rootkeys.auditcopy import AuditCopy
from services.authority.rootkeys.auditing import AuditService
from services.authority.rootkeys.rotating import DAY_MS
from services.authority.rootkeys.rotation import RotationService
from services.authority.rootkeys.seen import RootSeen
from services.authority.rootkeys.service import RootKeysService
from services.authority.serversecrets.service import SecretsService
from services.authority.serversecrets.store import SecretStore
from services.authority.tree.service import TreeService
from services.authority.trust.enrolments import Enrolments
from services.authority.trust.service import TrustService
from services.base.attestation.anchors import vendor_roots
from services.base.attestation.certifying import CertifiedHere, Certifier
from services.base.attestation.service import AttestationService
from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.base.jobs.service import JobsService
from services.base.keywrap.identity import ServerIdentity
from services.base.ledger.author import Author
from services.base.ledger.service import LedgerService, LedgerSettings
from services.base.release.manifest import ReleaseKeys
from services.base.release.service import ReleaseService
from services.base.release.store import ManifestStore
from services.base.storage.journal import JournalFile
from services.edge.acl.service import AclService
from services.edge.acme.certfiles import CertificateFiles
from services.edge.acme.desk import ChallengeDesk
from services.edge.acme.service import AcmeService
from services.edge.auth.service import AuthService
from services.edge.policy.service import PolicyService
from services.kernel.addr import default_ranges
from services.kernel.ids import b64u_encode
from services.kernel.invitations import decode_token
from tests.fakes.acme_server import Zone
from tests.fakes.ddns import ddns_service
from tests.fakes.memory_signer import KeyInMemorySigner, ShiftedClock
from tests.fakes.nftmodel import WrittenTable
from tests.fakes.recovering import DeskInProcess, NewSigner
from tests.fakes.relays import Told, relay_directory, relay_offering
from tests.fakes.seen import Seen
from tests.fakes.still_mesh import NobodyThere, StillMesh
from tests.fakes.world import APPLIERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.authority.rootkeys.auditing import AuditSource
    from services.authority.trust.tiers import TrustRules
    from services.base.attestation.certifying import Tpm
    from services.base.attestation.quoters import Quoter
    from services.kernel.records import Record


LOOK_S = 0.01  # how often a service looks for work: tests wait for what it then does
QUICK = LedgerSettings(attest_interval_s=LOOK_S)


class OneServer:
    """Start it with ``await OneServer.start(folder)``."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.clock = ShiftedClock()
        private, _ = generate_x25519()
        self.identity = ServerIdentity(
            signing_key=generate_signing_key(),
            wireguard_private_key=private,
            session_signing_key=generate_signing_key(),
        )
        self.signer = KeyInMemorySigner()
        self.hold_s = 0.0
        self.fatal: list[BaseException] = []
        self.kept: list[Sequence[Record]] = []
        self.audit_source: AuditSource | None = None
        self.quoter: Quoter | None = None
        self.tpm: Tpm | None = None

    @classmethod
    async def start(
        cls,
        folder,
        *,
        identity: ServerIdentity | None = None,
        trust: TrustRules | None = None,
        quoter: Quoter | None = None,
    ) -> OneServer:
        self = cls(folder)
        self.quoter = quoter
        self.identity = identity or self.identity
        self.tls = load_tls_identity(folder / "tls", name="test", clock=self.clock)
        self.records = await found_mesh(
            MeshFacts(
                domain="mesh.internal", region="eu-central", ranges=default_ranges(), trust=trust
            ),
            identity=self.identity,
            tls_key_hash=self.tls.key_hash,
            signer=self.signer,
            clock=self.clock,
        )
        await self.begin()
        await write_first_records(
            self.ledger,
            charter_records=self.records,
            author=self.author,
            signer=self.signer,
            clock=self.clock,
        )
        return self

    async def begin(self) -> None:
        """Start the services on what lies in the folder, each on those before it."""
        await self._begin_ledger()
        await self._begin_mesh()
        await self._begin_root()
        self._begin_enrollment()
        await self._begin_api()

    async def _begin_ledger(self) -> None:
        self.ledger = LedgerService(
            folder=self.folder / "ledger",
            signing_key=self.identity.signing_key,
            charter_records=self.records,
            appliers=APPLIERS,
            clock=self.clock,
            on_fatal=self.fatal.append,
            settings=QUICK,
            remember=self.kept.append,
        )
        await self.ledger.start()
        self.author = Author(
            key=self.identity.signing_key, mesh_id=self.ledger.mesh_id, clock=self.clock
        )

    async def _begin_mesh(self) -> None:
        self.governance = GovernanceService(
            ledger=self.ledger, author=self.author, clock=self.clock
        )
        self.seen = Seen()
        self.trust = TrustService(
            ledger=self.ledger,
            author=self.author,
            sources=self.seen,
            least_permille=lambda: self.governance.number(TIER1_UPTIME),
            interval_s=LOOK_S,
        )
        self.enrolments = Enrolments(ledger=self.ledger, author=self.author, roots=vendor_roots)
        self.refused_quotes = RefusedQuotes(folder=self.folder / "attestation", clock=self.clock)
        self.attestation = AttestationService(
            own_key=self.identity.signing_key.public_key,
            quoter=self.quoter,
            asker=NobodyThere(),
            servers=lambda: (),
            policy=self.enrolments.policy_of,
            journal=self.refused_quotes,
            clock=self.clock,
        )
        self.ipam = IpamService(ledger=self.ledger, author=self.author)
        await self.ipam.start()

    async def _begin_root(self) -> None:
        self.root_keys = RootKeysService(ledger=self.ledger, signer=self.signer, clock=self.clock)
        await self.root_keys.start()
        self.rotation = RotationService(
            ledger=self.ledger,
            root_keys=self.root_keys,
            rotator=self.signer,
            interval_ms=lambda: DAY_MS,
            overlap_ms=60_000,
            seen=RootSeen(self.folder / "identity" / "root_seen.json"),
            clock=self.clock,
            look_s=LOOK_S,
        )
        self.audit = AuditService(
            copy=AuditCopy(self.folder / "ledger" / "audit"),
            source=lambda: self.audit_source,
            anchors=AuditAnchors(ledger=self.ledger, author=self.author),
            clock=self.clock,
        )
        self.recovery = RecoveryService(
            ledger=self.ledger,
            author=self.author,
            key=self.identity.signing_key,
            root=self.root_keys,
            signer=DeskInProcess(self.folder),
        )
        self.host = NewSigner(self.folder)
        self.root_recovery = RootRecovery(
            ledger=self.ledger,
            author=self.author,
            key=self.identity.signing_key,
            host=self.host,
            clock=self.clock,
        )

    def _begin_enrollment(self) -> None:
        self.ballots = BallotService(
            ledger=self.ledger, author=self.author, clock=self.clock, hold_s=self.hold_s
        )
        self.zone_keys = ZoneKeysService(
            ledger=self.ledger,
            author=self.author,
            key=self.identity.session_signing_key,
            root=self.root_keys,
            maker=lambda: self.signer,
            clock=self.clock,
        )
        self.enroll = EnrollService(
            ledger=self.ledger,
            author=self.author,
            allocator=self.ipam,
            root_keys=self.root_keys,
            ballots=self.ballots,
            clock=self.clock,
        )

    async def _begin_api(self) -> None:
        self.tree = TreeService(ledger=self.ledger)
        await self.tree.start()
        self.told = Told()
        self.relays = relay_directory(self.ledger, self.told, self.clock)
        await self.relays.start()
        self.policy = PolicyService(
            ledger=self.ledger,
            mesh_id=self.ledger.mesh_id,
            interface="seip0",
            table=WrittenTable("seipd_policy_seip0"),
        )
        await self.policy.start()
        self.secrets = self._secrets()
        self.jobs = JobsService(
            path=self.folder / "jobs.db",
            clock=self.clock,
            rng=random.Random(1),  # noqa: S311 (failures repeat)
        )
        auth = AuthService(
            ledger=self.ledger, session_key=self.identity.session_signing_key, clock=self.clock
        )
        await auth.start()
        self.services = ApiServices(
            ledger=self.ledger,
            author=self.author,
            enroll=self.enroll,
            governance=self.governance,
            ballots=self.ballots,
            tree=self.tree,
            ipam=self.ipam,
            recovery=self.recovery,
            root_recovery=self.root_recovery,
            root_keys=self.root_keys,
            zone_keys=self.zone_keys,
            rotation=self.rotation,
            audit=self.audit,
            trust=self.trust,
            attestation=self.attestation,
            enrolments=self.enrolments,
            certified_here=CertifiedHere(tpm=self.tpm, clock=self.clock),
            certifier=Certifier(wire=NobodyThere(), clock=self.clock),
            refused_quotes=self.refused_quotes,
            release=self._release(),
            secrets=self.secrets,
            auth=auth,
            acl=AclService(ledger=self.ledger),
            policy=self.policy,
            ddns=ddns_service(self.folder, self.clock),
            relays=self.relays,
            relay_offering=relay_offering(self.ledger, self.relays, self.identity, self.clock),
            jobs=self.jobs,
            acme=self._acme(),
            mesh=StillMesh(self.ledger),
            tls=self.tls,
            clock=self.clock,
            all_services=(),
            version="test",
        )

    def _release(self) -> ReleaseService:
        keys = ReleaseKeys(trusted=frozenset())
        return ReleaseService(
            store=ManifestStore(folder=self.folder / "releases", keys=keys),
            clock=self.clock,
            rng=random.Random(1),  # noqa: S311 (failures repeat)
        )

    def _secrets(self) -> SecretsService:
        key = self.identity.signing_key
        folder = self.folder / "secrets"
        return SecretsService(
            ledger=self.ledger,
            author=self.author,
            key=key,
            store=SecretStore(folder=folder, seed=key.seed, mesh_id=self.ledger.mesh_id),
            wire=NobodyThere(),
            journal=JournalFile(folder=folder, stem="audit", clock=self.clock),
            clock=self.clock,
            rng=random.Random(1),  # noqa: S311 (failures repeat)
            retry_s=LOOK_S,
        )

    def _acme(self) -> AcmeService:
        zone = Zone()
        return AcmeService(
            authority=None,
            desk=ChallengeDesk(tell=zone, missing=zone.missing),
            files=CertificateFiles(self.folder / "certs"),
            jobs=self.jobs,
            ledger=self.ledger,
            clock=self.clock,
            installed=lambda _: None,
        )

    async def stop(self) -> None:
        await self.policy.stop()
        await self.relays.stop()
        await self.ledger.stop()

    def app(self, which: str):
        routes = {"public": PUBLIC_ROUTES, "private": PRIVATE_ROUTES}.get(
            which, (*PRIVATE_ROUTES, *PUBLIC_ROUTES)
        )
        app, self.gate = build_app(self.services, routes, title=which, operator=which == "operator")
        return app

    async def token(self, **wanted: Any) -> str:
        issued = await self.enroll.invite(
            Wanted(role="endpoint", **wanted), addresses=("127.0.0.1:9100",)
        )
        return issued.token

    def join_record(self, token: str, key: SigningKey, name: str, **changes: Any) -> dict[str, Any]:
        invitation = decode_token(token)
        signed = enroll_view.redeem_input(invitation.mesh_id, invitation.invite_id, key.public_key)
        _, wireguard = generate_x25519()
        body = {
            "invite": invitation.invite_id,
            "signature": b64u_encode(SigningKey(invitation.seed).sign(signed)),
            "role": "endpoint",
            "name": name,
            "wireguard_key": b64u_encode(wireguard),
            **changes,
        }
        author = Author(key=key, mesh_id=self.ledger.mesh_id, clock=self.clock)
        return author.record("auth.redeem", body).value()
