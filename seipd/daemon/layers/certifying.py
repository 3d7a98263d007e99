"""Certificates as the daemon has them: by ACME, from files, or none but its own authority's."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seipd import __version__
from seipd.api.tlsswitch import TlsSwitch
from seipd.daemon.file_certificates import FileCertificates
from services.base.jobs.service import JobsService
from services.base.storage.files import read_private
from services.edge.acme.account import AccountStore, ExternalBinding
from services.edge.acme.ca import Authority, CaSettings
from services.edge.acme.certfiles import CertificateFiles
from services.edge.acme.desk import ChallengeDesk
from services.edge.acme.directories import directory_url
from services.edge.acme.service import AcmeService
from services.kernel.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.edge.acme.certfiles import Installed
    from services.kernel.service import Service
    from services.mesh.gossip.service import GossipService

logger = logging.getLogger(__name__)

MAX_SECRET_BYTES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Certifying:
    """What gives this server its certificates."""

    jobs: JobsService
    acme: AcmeService
    switch: TlsSwitch
    files: FileCertificates | None

    @property
    def services(self) -> list[Service]:
        """What is started, in this order."""
        return [*([self.files] if self.files else []), self.jobs, self.acme]


class _Teller:
    """Tells the mesh, and lets the own name server look at once."""

    def __init__(self, gossip: GossipService, hurry: Callable[[], None]) -> None:
        self._gossip = gossip
        self._hurry = hurry

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        """See ``FactTeller``."""
        self._gossip.publish_fact(kind, payload, lifetime_ms=lifetime_ms)
        self._hurry()


def certifying_of(
    ground: Ground,
    base: BaseLayer,
    gossip: GossipService,
    *,
    hurry: Callable[[], None],
    missing: Callable[[Mapping[str, Collection[str]]], Awaitable[list[str]]],
) -> Certifying:
    """Make the services; nothing is started.

    Args:
        ground: the settings and this server.
        base: the ledger.
        gossip: carries challenges.
        hurry: lets the own name server look for challenges.
        missing: returns the name servers that do not answer TXT records yet.
    """
    clock = ground.clock
    jobs = JobsService(path=ground.paths.jobs, clock=clock, rng=secrets.SystemRandom())
    files, switch = CertificateFiles(ground.paths.certificates), TlsSwitch()

    def installed(held: Installed) -> None:
        try:
            switch.put(held.leaf.names, files.bundle_path(held.name))
        except CorruptError:
            logger.exception("the certificate of %s is not served", held.name)

    acme = AcmeService(
        authority=authority_of(ground),
        desk=ChallengeDesk(tell=_Teller(gossip, hurry), missing=missing),
        files=files,
        jobs=jobs,
        ledger=base.ledger,
        clock=clock,
        installed=installed,
    )
    return Certifying(
        jobs=jobs, acme=acme, switch=switch, files=file_certificates_of(ground, switch)
    )


def authority_of(ground: Ground) -> Authority | None:
    """Return the CA, where certificates are to come from one."""
    settings = ground.settings
    if settings.tls != "acme":
        return None
    return Authority(
        settings=CaSettings(
            directory=directory_url(settings.acme_directory),
            email=settings.acme_email,
            ca_file=Path(settings.acme_ca_file) if settings.acme_ca_file else None,
            user_agent=f"seipd/{__version__}",
        ),
        accounts=AccountStore(
            folder=ground.paths.certificates / "accounts",
            unlock=ground.unlock,
            clock=ground.clock,
        ),
        binding=lambda: binding_of(settings.acme_eab_kid, settings.acme_eab_key_file),
        clock=ground.clock,
    )


def binding_of(kid: str, key_file: str) -> ExternalBinding | None:
    """Return what ties the account to a customer of the CA.

    Raises:
        ConfigError: others may read the key.
        NotFoundError: there is no such file.
    """
    if not kid:
        return None
    data = read_private(Path(key_file).absolute(), MAX_SECRET_BYTES)
    return ExternalBinding(kid=kid, hmac_key=data.decode("ascii", errors="replace").strip())


def file_certificates_of(ground: Ground, switch: TlsSwitch) -> FileCertificates | None:
    """Return what reads certificates that somebody else renews."""
    settings = ground.settings
    if settings.tls != "files":
        return None
    return FileCertificates(
        certificate=Path(settings.tls_certificate_file),
        key=Path(settings.tls_key_file),
        switch=switch,
    )
