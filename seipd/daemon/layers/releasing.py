"""Binary attestation as the daemon runs it: release keys and URL from the settings, facts told."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from seipd.config.releases import ANYWHERE, parse_keys
from seipd.daemon.telling_release import ReleaseTeller, told_in
from services.authority.trust.released import ReleaseBook
from services.base.release.manifest import ReleaseKeys
from services.base.release.service import ReleaseService
from services.base.release.store import ManifestStore
from services.base.storage.journal import JournalFile
from services.kernel.errors import ForbiddenError, UnavailableError
from services.mesh.facts.kinds import RELEASE
from services.runtime.outbound import HttpClient
from services.runtime.ssrf import is_public

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from ipaddress import IPv4Address, IPv6Address
    from typing import Any

    from seipd.config.model import Settings
    from seipd.config.paths import Paths
    from services.authority.trust.policy import Released
    from services.base.ledger.service import LedgerService
    from services.base.release.approval import Running
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.service import GossipService

# A second or two of work that nobody waits for, and much else is to be done at the start.
MEASURE_AFTER_S = 5.0


def release_of(
    settings: Settings,
    paths: Paths,
    clock: Clock,
    *,
    is_inner: Callable[[IPv4Address | IPv6Address], bool],
) -> ReleaseService:
    """Return what measures this installation and keeps manifests.

    A releases URL leads to the public Internet, and not into the mesh, unless the settings say that
    it stands elsewhere: whoever has a say over its name must not choose what this server asks.
    """

    def may_reach(address: IPv4Address | IPv6Address) -> bool:
        if settings.releases_from == ANYWHERE:
            return True
        return is_public(address) and not is_inner(address)

    keys = ReleaseKeys(
        trusted=frozenset(parse_keys(settings.release_keys)),
        retired=frozenset(parse_keys(settings.retired_release_keys)),
    )
    return ReleaseService(
        store=ManifestStore(folder=paths.releases, keys=keys),
        clock=clock,
        rng=secrets.SystemRandom(),
        releases_url=settings.releases_url,
        measure_after_s=MEASURE_AFTER_S,
        client=lambda: HttpClient(may_reach=may_reach),
        journal=JournalFile(folder=paths.releases, stem="refused", clock=clock),
    )


def teller_of(
    release: ReleaseService, ledger: LedgerService, gossip: GossipService, clock: Clock
) -> ReleaseTeller:
    """Return what tells the others which release is installed here."""
    return ReleaseTeller(
        running=lambda: release.running,
        tell=gossip,
        servers_count=lambda: len(ledger.charter.servers()),
        clock=clock,
    )


class ReleasesSeen:
    """What each server tells that it runs, and what is held of that here."""

    def __init__(
        self, *, own_id: ServerId, release: ReleaseService, gossip: GossipService, clock: Clock
    ) -> None:
        self._own_id = own_id
        self._release = release
        self._clock = clock
        self._book = ReleaseBook()
        self._heard: dict[str, Fact] = {}
        gossip.subscribe_facts(self._hear)

    def watch(self, servers: Collection[ServerId]) -> None:
        """Go by these servers."""
        self._book.watch(servers)
        self._heard = {one: fact for one, fact in self._heard.items() if one in servers}

    def of(self, server_id: ServerId) -> Released:
        """Return what is known of what a server runs."""
        return self._book.judge(
            server_id,
            self._told(server_id),
            approve=self._release.approve,
            is_known=bool(self._release.manifests),
            now_ms=self._clock.now_ms(),
        )

    def shown(self, server_id: ServerId) -> dict[str, Any] | None:
        """Return what a server tells that it runs, for people; None where it told nothing.

        Without manifests here it is neither approved nor not.
        """
        told = self._told(server_id)
        if told is None:
            return None
        approved, code = None, None
        if self._release.manifests:
            try:
                self._release.approve(told)
                approved = True
            except ForbiddenError as error:
                approved, code = False, error.code
        return {
            "version": told.version,
            "platform": told.platform,
            "python": told.python,
            "measurement": told.measurement,
            "approved": approved,
            "code": code,
        }

    def _told(self, server_id: ServerId) -> Running | None:
        if server_id == self._own_id:
            try:
                return self._release.running
            except UnavailableError:
                return None
        fact = self._heard.get(server_id)
        if fact is None or not fact.holds(self._clock.now_ms()):
            return None
        return told_in(fact)

    def _hear(self, fact: Fact) -> None:
        if fact.kind == RELEASE:
            self._heard[fact.server_id] = fact
