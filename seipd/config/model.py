"""Every setting of the daemon, checked once, frozen."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from seipd.config.certificates import bad_certificates
from seipd.config.hardware import bad_hardware
from seipd.config.releases import RELEASES_FROM, bad_releases
from seipd.config.stun import bad_stun
from services.edge.ddns.target import parse_target
from services.edge.resolver.upstreams import parse_upstreams
from services.edge.wireguard.model import MAX_CHOSEN_MTU, MIN_MTU, check_interface_name
from services.kernel.addr import parse_address, parse_network, ranges_from_value
from services.kernel.errors import ConfigError, SeipdError
from services.kernel.ids import parse_domain, parse_label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.edge.ddns.target import Target

DEFAULT_DATA_ROOT = Path("/var/lib/seipd")
DEFAULT_CONFIG = Path("/etc/seipd/seipd.toml")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
BACKENDS = ("auto", "kernel", "userspace")
TLS_KINDS = ("self-signed", "acme", "files")
PORTS = (
    "http_port",
    "private_http_port",
    "gossip_port",
    "relay_port",
    "stun_port",
    "dns_port",
    "wireguard_port",
    "hole_punch_port",
)
RANGES = ("tunnel_range", "backbone_range", "private_range", "shared_range")
INSECURE_PREFIX = "allow_insecure_"
DURATIONS = ("gossip_interval_s",)
MAX_ROTATION_S = 90 * 86_400

# Opened on the same address with the same transport, so two that are equal can't both be opened.
_APART = (("http_port", "private_http_port"), ("gossip_port", "wireguard_port"))

Fault = tuple[str, str]
"""The name of a setting, and what is wrong with it."""


class BadSettingsError(ConfigError):
    """One setting or more is wrong; ``faults`` names each."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(
            "; ".join(f"{name} {text}" for name, text in faults),
            mend="seipd config show prints where each comes from once they are right",
        )
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the daemon and the operator's commands are told; durations carry their unit.

    Raises:
        BadSettingsError: with every fault at once.
    """

    data_root: Path = DEFAULT_DATA_ROOT
    log_level: str = "info"
    log_format: str = "text"
    domain: str = "mesh.internal"
    region: str = "eu-central"
    bind_address: str = "0.0.0.0"  # noqa: S104 (the public server is for everyone)
    public_address: str = ""
    public_address6: str = ""
    http_port: int = 9100
    private_http_port: int = 9101
    gossip_port: int = 9102
    relay_port: int = 9103
    relay_enabled: bool = True
    stun_port: int = 3478
    stun_servers: str = ""
    stun_alternate_address: str = ""
    dns_port: int = 53
    dns_upstreams: str = ""
    ddns: str = ""
    ddns_name: str = ""
    ddns_zone: str = ""
    ddns_server: str = ""
    ddns_key: str = ""
    ddns_secret: str = "ddns"  # noqa: S105 (the name of one)
    wireguard_port: int = 51940
    hole_punch_port: int = 51941
    wireguard_interface: str = "seip0"
    wireguard_backend: str = "auto"
    wireguard_mtu: int = 0
    tls: str = "self-signed"
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    acme_directory: str = "letsencrypt"
    acme_email: str = ""
    acme_ca_file: str = ""
    acme_eab_kid: str = ""
    acme_eab_key_file: str = ""
    signer: str = "auto"
    unlock_file: str = ""
    allow_insecure_same_user: bool = False
    gossip_interval_s: float = 1.0
    release_keys: str = ""
    retired_release_keys: str = ""
    releases_url: str = ""
    releases_from: str = "public"
    attestation: str = "auto"
    attestation_interval_s: float = 2700.0
    attestation_collateral: str = ""
    tpm_tcti: str = "device:/dev/tpmrm0"
    tpm_pcrs: str = "0,1,2,3,4,5,6,7"
    root_rotation_interval_s: float = 0.0
    root_overlap_s: float = 86_400.0
    tunnel_range: str = "10.64.0.0/10"
    backbone_range: str = "172.16.0.0/22"
    private_range: str = "10.128.0.0/9"
    shared_range: str = "172.20.0.0/14"
    sources: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        faults = [*_bad_choices(self), *_bad_ports(self), *_bad_names(self), *_bad_ranges(self)]
        release_keys = {
            name: getattr(self, name) for name in ("release_keys", "retired_release_keys")
        }
        faults += bad_releases(keys=release_keys, url=self.releases_url)
        for name in DURATIONS:
            value = getattr(self, name)
            # Written so that NaN, which compares false to all, is a fault.
            if not 0.01 <= value <= 3600:
                faults.append((name, f"must be 0.01 to 3600 seconds, not {value}"))
        faults += [*_bad_mtu(self), *_bad_rotation(self)]
        faults += bad_hardware(
            attestation=self.attestation,
            tcti=self.tpm_tcti,
            pcrs=self.tpm_pcrs,
            collateral=self.attestation_collateral,
            interval_s=self.attestation_interval_s,
        )
        faults += bad_stun(
            servers=self.stun_servers,
            alternate=self.stun_alternate_address,
            public6=self.public_address6,
        )
        faults += _bad_ddns(self)
        faults += bad_certificates(
            tls=self.tls,
            files=(self.tls_certificate_file, self.tls_key_file),
            directory=self.acme_directory,
            email=self.acme_email,
            binding=(self.acme_eab_kid, self.acme_eab_key_file),
        )
        if faults:
            raise BadSettingsError(faults)

    @property
    def insecure(self) -> list[str]:
        """The protections that somebody switched off, by the names of their settings."""
        names = sorted(one.name for one in fields(self) if one.name.startswith(INSECURE_PREFIX))
        return [name for name in names if getattr(self, name)]


def ddns_target(settings: Settings) -> Target | None:
    """Return where the address of this server is to be written down.

    Raises:
        InputError: ``bad_ddns``.
    """
    return parse_target(
        settings.ddns,
        name=settings.ddns_name,
        zone=settings.ddns_zone,
        server=settings.ddns_server,
        key=settings.ddns_key,
        secret=settings.ddns_secret,
    )


def _bad_ddns(settings: Settings) -> list[Fault]:
    try:
        ddns_target(settings)
    except SeipdError as error:
        return [("ddns", str(error))]
    return []


def _bad_choices(settings: Settings) -> list[Fault]:
    choices = (
        ("log_level", LOG_LEVELS),
        ("log_format", LOG_FORMATS),
        ("wireguard_backend", BACKENDS),
        ("tls", TLS_KINDS),
        ("releases_from", RELEASES_FROM),
    )
    return [
        (name, f"must be {' or '.join(allowed)}, not {getattr(settings, name)[:40]!r}")
        for name, allowed in choices
        if getattr(settings, name) not in allowed
    ]


def _bad_ports(settings: Settings) -> list[Fault]:
    ports = {name: getattr(settings, name) for name in PORTS}
    faults = [
        (name, f"must be 0 to 65535, not {port}")
        for name, port in ports.items()
        if not 0 <= port <= 65535
    ]
    faults += [
        (other, f"is {ports[other]}, as is {one}")
        for one, other in _APART
        if ports[one] and ports[one] == ports[other]
    ]
    return faults


def _bad_mtu(settings: Settings) -> list[Fault]:
    mtu = settings.wireguard_mtu
    if mtu and not MIN_MTU <= mtu <= MAX_CHOSEN_MTU:
        return [("wireguard_mtu", f"must be {MIN_MTU} to {MAX_CHOSEN_MTU}, or 0, not {mtu}")]
    return []


def _bad_rotation(settings: Settings) -> list[Fault]:
    interval_s, overlap_s = settings.root_rotation_interval_s, settings.root_overlap_s
    faults = []
    if interval_s and not 20 <= interval_s <= MAX_ROTATION_S:
        faults.append(("root_rotation_interval_s", "must be 20 seconds to 90 days, or 0"))
    if not 10 <= overlap_s <= MAX_ROTATION_S / 3 or 0 < interval_s <= overlap_s:
        faults.append(("root_overlap_s", "must be 10 seconds to 30 days, less than the interval"))
    return faults


def _bad_names(settings: Settings) -> list[Fault]:
    checks: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("domain", parse_domain),
        ("region", parse_label),
        ("bind_address", parse_address),
        ("wireguard_interface", check_interface_name),
        ("dns_upstreams", parse_upstreams),
    )
    return [
        fault for name, check in checks if (fault := _fault(name, getattr(settings, name), check))
    ]


def _bad_ranges(settings: Settings) -> list[Fault]:
    faults = [
        fault for name in RANGES if (fault := _fault(name, getattr(settings, name), parse_network))
    ]
    if faults:
        return faults
    try:
        ranges_from_value(range_values(settings))
    except SeipdError as error:
        return [("tunnel_range", f"and the other ranges: {error}")]
    return []


def _fault(name: str, value: str, check: Callable[[str], object]) -> Fault | None:
    try:
        check(value)
    except SeipdError as error:
        return name, f"is wrong: {error}"
    return None


def range_values(settings: Settings) -> dict[str, str]:
    """Return the ranges as the genesis record names them."""
    return {name.removesuffix("_range"): getattr(settings, name) for name in RANGES}
