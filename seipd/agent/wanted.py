"""How the tunnel is wanted. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The tunnel of one agent."""

    interface: str
    backend: str
    signer_count: int
    """How many servers have to sign a key."""
    sets_dns: bool = True
    """Whether this machine's names are looked up at the gateway."""
    domains: tuple[str, ...] = ()
    """Looked up there beside the mesh's own, where that can be said for single domains."""
    mtu: int = 0
    """Of the interface; 0 has it found out."""

    def words(self) -> list[str]:
        """Return the same as options of ``seip run``."""
        words = ["--wireguard-interface", self.interface, "--wireguard-backend", self.backend]
        for domain in self.domains:
            words += ["--dns-domain", domain]
        if self.mtu:
            words += ["--mtu", str(self.mtu)]
        return words if self.sets_dns else [*words, "--no-dns"]
