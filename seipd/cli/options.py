"""Options that commands share, and the settings that follow from all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seipd.config.model import Settings
    from services.authority.trust.tiers import TrustRules

_NETWORK = (
    ("--bind-address", "ADDR", "address that the public servers listen on [0.0.0.0]"),
    ("--public-address", "ADDR", "address by which others reach this server; none: at none"),
    ("--public-address6", "ADDR", "IPv6 address by which endpoints reach it, too"),
    ("--http-port", "PORT", "public HTTPS [9100]"),
    ("--private-http-port", "PORT", "private HTTPS, on the tunnel [9101]"),
    ("--gossip-port", "PORT", "gossip, udp [9102]"),
    ("--relay-port", "PORT", "the relay, udp; the 256 ports after it, too [9103]"),
    ("--relay-enabled", "BOOL", "carry for endpoints that find no direct way [true]"),
    ("--stun-port", "PORT", "STUN, udp [3478]"),
    ("--stun-alternate-address", "ADDR", "a second address of this machine, for RFC 5780"),
    ("--stun-servers", "ADDR,...", "asked for the public address where none is given"),
    ("--dns-port", "PORT", "DNS, udp and tcp [53]"),
    ("--dns-upstreams", "ADDR,...", "asked for endpoints: name servers, or none [the machine's]"),
    ("--wireguard-port", "PORT", "WireGuard, udp [51940]"),
    ("--hole-punch-port", "PORT", "public port that says how one is seen, udp [51941]"),
    ("--wireguard-interface", "NAME", "the tunnel's interface [seip0]"),
    ("--wireguard-backend", "KIND", "auto, kernel or userspace [auto]"),
    ("--wireguard-mtu", "BYTES", "the tunnel's MTU; 0: as the uplink takes it [0]"),
    ("--tls", "KIND", "TLS certificates: self-signed, acme or files [self-signed]"),
    ("--signer", "ADDRESS", "auto, none, a unix socket's path, tls://HOST:PORT [auto]"),
    ("--unlock-file", "FILE", "the secret that opens the identity [<data-root>.unlock]"),
)
_RANGES = (
    ("--tunnel-range", "CIDR", "endpoint tunnels [10.64.0.0/10]"),
    ("--backbone-range", "CIDR", "server backbone [172.16.0.0/22]"),
    ("--private-range", "CIDR", "customers' private subnets [10.128.0.0/9]"),
    ("--shared-range", "CIDR", "shared blocks [172.20.0.0/14]"),
)

Command = Any
MAX_DIGITS = 10


def network_options(command: Command) -> Command:
    """Add the network options."""
    return _add(command, _NETWORK)


def range_options(command: Command) -> Command:
    """Add the address ranges: facts of the mesh, so only where it is made."""
    return _add(command, _RANGES)


def insecure_option(command: Command) -> Command:
    """Add the option that lets the signer run as the daemon's own user."""
    decorate: Callable[[Command], Command] = click.option(
        "--allow-insecure-same-user",
        is_flag=True,
        default=None,
        help="run the signer as this user: for trials only",
    )
    return decorate(command)


def parameter_option(command: Command) -> Command:
    """Add what the parameters of governance begin with: a fact of the mesh, like the ranges."""
    decorate: Callable[[Command], Command] = click.option(
        "--parameter",
        multiple=True,
        metavar="NAME=VALUE",
        help="begin with it (seipd governance params): later only a vote changes it",
    )
    return decorate(command)


def trust_options(command: Command) -> Command:
    """Add what a mesh demands of servers in tier 1: a fact of the mesh, like the ranges."""
    decorate: list[Callable[[Command], Command]] = [
        click.option(
            "--attestation",
            multiple=True,
            type=click.Choice(["none", "tpm2", "sev-snp", "tdx", "sgx"]),
            help="hardware of which one has to vouch for a server in tier 1 [none]",
        ),
        click.option(
            "--tier1-checks",
            type=click.IntRange(1, 128),
            default=100,
            help="checks of a server before its uptime counts for tier 1 [100]",
        ),
        click.option(
            "--new-servers",
            type=click.Choice(["tier1", "tier2"]),
            default="tier2",
            help="the tier in which servers begin [tier2]",
        ),
    ]
    for one in reversed(decorate):
        command = one(command)
    return command


def trust_of(attestation: Sequence[str], tier1_checks: int, new_servers: str) -> TrustRules:
    """Return what the options say of tier 1.

    Raises:
        ConfigError: they contradict each other.
    """
    from services.authority.trust.tiers import Tier, TrustRules
    from services.kernel.errors import ConfigError

    platforms = tuple(dict.fromkeys(one for one in attestation if one != "none"))
    if platforms and "none" in attestation:
        raise ConfigError("--attestation none goes with no other")
    if platforms and new_servers == "tier1":
        raise ConfigError("where hardware has to vouch, servers begin in tier 2")
    newcomers = Tier.ATTESTED if new_servers == "tier1" else Tier.CERTIFIED
    return TrustRules(attestation=platforms, checks=tier1_checks, newcomers=newcomers)


def parameters_of(texts: Sequence[str]) -> dict[str, int | str]:
    """Return the parameters that ``NAME=VALUE`` texts name.

    Raises:
        ConfigError: one of another form, or named twice.
        RejectedError: ``unknown_parameter`` or ``out_of_range``.
    """
    from services.authority.governance.parameters import require_allowed
    from services.kernel.errors import ConfigError

    found: dict[str, int | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in found:
            raise ConfigError(f"--parameter {text[:60]}: say NAME=VALUE, once for each name")
        found[name] = parameter_value(value)
        require_allowed(name, found[name])
    return found


def parameter_value(text: str) -> int | str:
    """Return the number or the word that a parameter is said to be."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < MAX_DIGITS else text


def settings_of(context: click.Context, **flags: object) -> Settings:
    """Return the settings in force for a command.

    Raises:
        ConfigError: a flag, a variable or the file is wrong.
    """
    from seipd.config.load import load_settings

    shared = context.find_root().obj or {}
    config = shared.get("config")
    given = {name: shared.get(name) for name in ("data_root", "log_level", "log_format")}
    return load_settings(
        flags={**given, **flags},
        environment=os.environ,
        config=Path(config) if config else None,
    )


def wants_json(context: click.Context) -> bool:
    """Say whether ``--json`` was given."""
    return bool((context.find_root().obj or {}).get("json"))


def _add(command: Command, options: tuple[tuple[str, str, str], ...]) -> Command:
    for name, metavar, text in reversed(options):
        command = click.option(name, metavar=metavar, default=None, help=text)(command)
    return command
