"""TEE attestation as the daemon runs it: this machine's device, the way to others, the audit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from seipd.config.hardware import AUTO, NONE, parse_pcrs
from seipd.daemon.refused_quotes import RefusedQuotes
from services.authority.trust.enrolments import Enrolments
from services.authority.trust.tiers import rules_in
from services.base.attestation.anchors import vendor_roots
from services.base.attestation.certifying import CertifiedHere, Certifier
from services.base.attestation.conversation import ASK_AGAIN_MS, Pace
from services.base.attestation.devices import GRAMINE, TSM_REPORTS, GramineQuoter, TsmQuoter
from services.base.attestation.service import LOOK_EVERY_S, AttestationService
from services.base.attestation.tpm_tools import DEFAULT_TCTI, TpmTools
from services.base.attestation.verified import Platform
from services.base.storage.files import read_file
from services.kernel.errors import UnreachableError
from services.kernel.ids import server_id_of
from services.mesh.bulk.ports import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from seipd.config.model import Settings
    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.base.attestation.quoters import Quoter
    from services.mesh.gossip.service import GossipService

MAX_COLLATERAL_BYTES = 40 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Attesting:
    """What speaks of hardware."""

    service: AttestationService
    enrolments: Enrolments
    certified_here: CertifiedHere
    certifier: Certifier
    refused: RefusedQuotes
    asked: Callable[[], Collection[bytes]]
    """The keys of the servers that this one asks."""


class Wire(Protocol):
    """The way to a server whose place is known."""

    async def attest(self, place: Place, path: str, sent: bytes) -> bytes:
        """See HttpTileFetcher."""


class OverHttps:
    """Finds servers by what they tell of their address; satisfies Asker and Wire of certifying."""

    def __init__(self, *, gossip: GossipService, wire: Wire) -> None:
        self._gossip = gossip
        self._wire = wire

    async def ask(self, server_key: bytes, challenge: bytes) -> bytes:
        """Send a challenge to the server that holds this key; return what that very server answers.

        Raises:
            UnreachableError: nobody knows where it is.
            SeipdError: it can't be reached.
        """
        return await self._ask(server_key, "/api/attestation/challenge", challenge)

    async def device(self, server_key: bytes) -> bytes:
        """Ask for the keys of a server's TPM.

        Raises:
            SeipdError: it can't be reached, or has none.
        """
        return await self._ask(server_key, "/api/attestation/device", b"{}")

    async def open(self, server_key: bytes, credential: bytes) -> bytes:
        """Have a server's TPM open a credential.

        Raises:
            SeipdError: it can't be reached, or the TPM refuses.
        """
        return await self._ask(server_key, "/api/attestation/credential", credential)

    async def _ask(self, server_key: bytes, path: str, sent: bytes) -> bytes:
        name = server_id_of(server_key)
        fact = self._gossip.addresses().get(name)
        if fact is None:
            raise UnreachableError(f"{name} has not told where it is")
        place = Place(server_id=name, host=fact.host, port=fact.http_port)
        return await self._wire.attest(place, path, sent)


def attesting_of(ground: Ground, base: BaseLayer, gossip: GossipService, wire: Wire) -> Attesting:
    """Return what answers for this machine's hardware, and asks the other servers for theirs.

    Witnesses ask, since they give verdicts, and only where the genesis demands hardware.
    """
    ledger, settings = base.ledger, ground.settings
    enrolments = Enrolments(ledger=ledger, author=base.author, roots=vendor_roots)
    demanded = rules_in(ground.records[0].body).attestation

    def servers() -> Collection[bytes]:
        charter = ledger.charter
        is_witness = ledger.server_id in charter.witnesses_at(charter.number)
        if not is_witness or not demanded:
            return ()
        return [one.key for one in charter.servers().values()]

    quoter = quoter_of(settings, demanded, folder=ground.paths.run)
    asker = OverHttps(gossip=gossip, wire=wire)
    refused = RefusedQuotes(folder=ground.paths.attestation, clock=ground.clock)
    interval_ms = int(settings.attestation_interval_s * 1000)
    service = AttestationService(
        own_key=ground.identity.signing_key.public_key,
        quoter=quoter,
        asker=asker,
        servers=servers,
        policy=enrolments.policy_of,
        journal=refused,
        clock=ground.clock,
        pace=Pace(renew_after_ms=interval_ms, again_after_ms=min(ASK_AGAIN_MS, interval_ms)),
        look_every_s=min(LOOK_EVERY_S, settings.attestation_interval_s / 5),
    )
    enrolments.subscribe(service.hurry)
    return Attesting(
        service=service,
        enrolments=enrolments,
        certified_here=CertifiedHere(
            tpm=quoter if isinstance(quoter, TpmTools) else None, clock=ground.clock
        ),
        certifier=Certifier(wire=asker, clock=ground.clock),
        refused=refused,
        asked=servers,
    )


def quoter_of(settings: Settings, demanded: Collection[str], *, folder: Path) -> Quoter | None:
    """Return this machine's device: the one set, or the first of those demanded that is there.

    Raises:
        StorageError: Intel's collateral can't be read.
    """
    if settings.attestation == NONE:
        return None
    if settings.attestation != AUTO:
        return device_of(Platform(settings.attestation), settings, folder)
    found = (Platform(one) for one in demanded if is_there(Platform(one), settings))
    platform = next(found, None)
    return device_of(platform, settings, folder) if platform is not None else None


def is_there(platform: Platform, settings: Settings) -> bool:
    """Say whether this machine seems to have such a device."""
    if platform is Platform.TPM2:
        return settings.tpm_tcti != DEFAULT_TCTI or Path(DEFAULT_TCTI.partition(":")[2]).exists()
    if platform is Platform.SGX:
        return GRAMINE.exists() and bool(settings.attestation_collateral)
    guest = {Platform.SEV_SNP: Path("/dev/sev-guest"), Platform.TDX: Path("/dev/tdx_guest")}
    has_collateral = platform is Platform.SEV_SNP or bool(settings.attestation_collateral)
    return guest[platform].exists() and TSM_REPORTS.exists() and has_collateral


def device_of(platform: Platform, settings: Settings, folder: Path) -> Quoter:
    """Return the device of a platform.

    Raises:
        StorageError: Intel's collateral can't be read.
    """
    if platform is Platform.TPM2:
        return TpmTools(folder=folder, tcti=settings.tpm_tcti, pcrs=parse_pcrs(settings.tpm_pcrs))
    file = settings.attestation_collateral
    collateral = read_file(Path(file), MAX_COLLATERAL_BYTES) if file else b""
    if platform is Platform.SGX:
        return GramineQuoter(collateral=collateral)
    supplement = collateral if platform is Platform.TDX else b""
    return TsmQuoter(platform=platform, supplement=supplement)
