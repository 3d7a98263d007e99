"""Every setting of the daemon, checked once, frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from services.kernel.errors import ConfigError, InputError
from services.kernel.ids import parse_domain, parse_label

DEFAULT_DATA_ROOT = Path("/var/lib/seipd")
DEFAULT_CONFIG = Path("/etc/seipd/seipd.toml")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
BACKENDS = ("auto", "kernel", "userspace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the daemon and the operator's commands are told; durations carry their unit."""

    data_root: Path = DEFAULT_DATA_ROOT
    log_level: str = "info"
    log_format: str = "text"
    domain: str = "mesh.internal"
    region: str = "eu-central"
    bind_address: str = "0.0.0.0"  # noqa: S104 (the public server is for everyone)
    public_address: str = ""
    http_port: int = 9100
    private_http_port: int = 9101
    gossip_port: int = 9102
    wireguard_port: int = 51940
    wireguard_interface: str = "seip0"
    wireguard_backend: str = "auto"
    signer: str = "auto"
    unlock_file: str = ""
    allow_insecure_same_user: bool = False
    gossip_interval_s: float = 1.0
    dead_after_s: float = 10.0
    tunnel_range: str = "10.64.0.0/10"
    backbone_range: str = "172.16.0.0/22"
    private_range: str = "10.128.0.0/9"
    shared_range: str = "172.20.0.0/14"
    sources: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Check every value; all faults are told at once."""
        faults = [*self._bad_choices(), *self._bad_ports(), *self._bad_names()]
        for name in ("gossip_interval_s", "dead_after_s"):
            value = getattr(self, name)
            if not 0.01 <= value <= 3600:
                faults.append(f"{name} must be 0.01 to 3600 seconds, not {value}")
        if faults:
            raise ConfigError("; ".join(faults), mend="seipd config show prints what is in force")

    def _bad_choices(self) -> list[str]:
        choices = (
            ("log_level", self.log_level, LOG_LEVELS),
            ("log_format", self.log_format, LOG_FORMATS),
            ("wireguard_backend", self.wireguard_backend, BACKENDS),
        )
        return [
            f"{name} must be one of {', '.join(allowed)}, not {value[:40]!r}"
            for name, value, allowed in choices
            if value not in allowed
        ]

    def _bad_ports(self) -> list[str]:
        names = ("http_port", "private_http_port", "gossip_port", "wireguard_port")
        ports = {name: getattr(self, name) for name in names}
        faults = [
            f"{name} must be 0 to 65535, not {port}"
            for name, port in ports.items()
            if not 0 <= port <= 65535
        ]
        for one, other in (("http_port", "private_http_port"), ("gossip_port", "wireguard_port")):
            if ports[one] and ports[one] == ports[other]:
                faults.append(f"{one} and {other} are both {ports[one]}")
        return faults

    def _bad_names(self) -> list[str]:
        faults = []
        for name, check in (("domain", parse_domain), ("region", parse_label)):
            try:
                check(getattr(self, name))
            except InputError as error:
                faults.append(f"{name}: {error}")
        return faults
