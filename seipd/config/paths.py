"""Where things lie: below the data root, and beside it what a backup must not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """All paths of one data root."""

    root: Path

    @property
    def identity(self) -> Path:
        """Who this server is."""
        return self.root / "identity"

    @property
    def ledger(self) -> Path:
        """The feeds."""
        return self.root / "ledger"

    @property
    def tls(self) -> Path:
        """The TLS authority of this server and its newest leaf."""
        return self.root / "certs" / "server"

    @property
    def certificates(self) -> Path:
        """TLS certificates by name, and the accounts at the CAs that they come from."""
        return self.root / "certs"

    @property
    def jobs(self) -> Path:
        """The queue of durable jobs."""
        return self.root / "jobs.db"

    @property
    def run(self) -> Path:
        """Sockets; nothing in it outlives a boot."""
        return self.root / "run"

    @property
    def socket(self) -> Path:
        """The operator's socket."""
        return self.run / "seipd.sock"

    @property
    def peers(self) -> Path:
        """Where the other servers were last seen."""
        return self.identity / "peers.json"

    @property
    def alarms(self) -> Path:
        """Proofs that servers tell different states of the same feeds."""
        return self.root / "alarms"

    @property
    def releases(self) -> Path:
        """Release manifests."""
        return self.root / "releases"

    @property
    def attestation(self) -> Path:
        """The audit of refused quotes."""
        return self.root / "attestation"

    @property
    def dns_serial(self) -> Path:
        """The serial of the zone that was told last."""
        return self.root / "dns" / "serial"

    @property
    def ddns(self) -> Path:
        """The address that was told last to who runs the zone above."""
        return self.root / "dns" / "ddns.json"

    @property
    def zone_key(self) -> Path:
        """What this server signs the mesh's zone with, sealed."""
        return self.root / "dns" / "zone_key.enc"

    @property
    def secrets(self) -> Path:
        """Secrets for servers, sealed; and the audit of who asked for them."""
        return self.root / "secrets"

    @property
    def unlock(self) -> Path:
        """The secret that opens the identity; outside the data root."""
        return self.root.with_name(f"{self.root.name}.unlock")

    @property
    def signer_state(self) -> Path:
        """The signer's own folder; outside the data root, another user's."""
        return self.root.with_name(f"{self.root.name}-signer")

    @property
    def signer_socket(self) -> Path:
        """Where the signer listens."""
        return self.signer_state / "run" / "signer.sock"

    @property
    def signer_unlock(self) -> Path:
        """The secret that opens the signer's keys."""
        return self.root.with_name(f"{self.root.name}-signer.unlock")
