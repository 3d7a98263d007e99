"""``seipd init``, ``run``, ``up`` and ``down``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from seipd.cli.options import (
    insecure_option,
    network_options,
    parameter_option,
    parameters_of,
    range_options,
    settings_of,
    trust_of,
    trust_options,
    wants_json,
)
from seipd.cli.output import print_facts, print_json, progress
from seipd.cli.shares import warn_of_file

if TYPE_CHECKING:
    from seipd.config.model import Settings


def _init(
    settings: Settings, parameter: tuple[str, ...], tier1: tuple[tuple[str, ...], int, str]
) -> dict[str, str]:
    from seipd.daemon.founding import init_mesh

    parameters, trust = parameters_of(parameter), trust_of(*tier1)
    with progress("making keys and the first records"):
        return asyncio.run(init_mesh(settings, parameters, trust))


def _run(context: click.Context, settings: Settings, flags: dict[str, object]) -> int:
    from services.runtime.loading import loading_for_good

    with loading_for_good():
        from seipd.daemon.app import run_daemon

    return asyncio.run(run_daemon(settings, reload=lambda: settings_of(context, **flags)))


def _told(settings: Settings, made: dict[str, str]) -> list[tuple[str, object]]:
    root = (
        "" if str(settings.data_root) == "/var/lib/seipd" else f" --data-root {settings.data_root}"
    )
    from seipd.daemon.network import public_address_of, with_public_address

    settings = asyncio.run(with_public_address(settings))
    address = public_address_of(settings.public_address, settings.bind_address)
    return [
        ("mesh id", made["mesh_id"]),
        ("root fingerprint", made["root_fingerprint"]),
        ("server", made["server_id"]),
        ("health", f"https://{address}:{settings.http_port}/api/health"),
        ("invite an endpoint", f"sudo seipd invite endpoint{root}"),
        ("invite a server", f"sudo seipd invite server{root}"),
    ]


@click.command()
@click.option("--domain", default=None, help="the mesh's DNS domain [mesh.internal]")
@click.option("--region", default=None, help="this server's region [eu-central]")
@network_options
@range_options
@insecure_option
@parameter_option
@trust_options
@click.pass_context
def init(
    context: click.Context,
    /,
    parameter: tuple[str, ...],
    attestation: tuple[str, ...],
    tier1_checks: int,
    new_servers: str,
    **flags: object,
) -> None:
    """Make a new mesh: identity, root key, first records."""
    settings = settings_of(context, **flags)
    made = _init(settings, parameter, (attestation, tier1_checks, new_servers))
    warn_of_file(made["recovery_file"])
    if wants_json(context):
        print_json(made)
    else:
        print_facts(_told(settings, made))


@click.command()
@network_options
@insecure_option
@click.pass_context
def run(context: click.Context, /, **flags: object) -> int:
    """Run the daemon in the foreground."""
    return _run(context, settings_of(context, **flags), flags)


@click.command()
@click.option("--domain", default=None, help="the mesh's DNS domain [mesh.internal]")
@click.option("--region", default=None, help="this server's region [eu-central]")
@network_options
@range_options
@insecure_option
@parameter_option
@trust_options
@click.pass_context
def up(
    context: click.Context,
    /,
    parameter: tuple[str, ...],
    attestation: tuple[str, ...],
    tier1_checks: int,
    new_servers: str,
    **flags: object,
) -> int:
    """Make a mesh if there is none yet, then run."""
    from seipd.config.paths import Paths
    from seipd.daemon.genesis import load_charter
    from services.kernel.ids import mesh_id_of

    settings = settings_of(context, **flags)
    paths = Paths(settings.data_root)
    if (paths.ledger / "feed" / "checkpoint").exists():
        mesh_id = mesh_id_of(load_charter(paths.identity)[0].actor)
        text = (paths.identity / "keypair.pub").read_text(encoding="ascii").strip()
        made = {"mesh_id": mesh_id, "root_fingerprint": mesh_id, "server_id": _server_id(text)}
    else:
        made = _init(settings, parameter, (attestation, tier1_checks, new_servers))
        warn_of_file(made["recovery_file"])
    print_facts(_told(settings, made))
    return _run(context, settings, flags)


@click.command()
@network_options
@click.pass_context
def down(context: click.Context, /, **flags: object) -> None:
    """Take the tunnel down that a stopped daemon left up."""
    from seipd.daemon.teardown import take_down

    settings = settings_of(context, **flags)
    removed = take_down(settings)
    click.echo(f"{settings.wireguard_interface}: {'removed' if removed else 'was not there'}")


def _server_id(text: str) -> str:
    from services.kernel.ids import parse_key, server_id_of

    return server_id_of(parse_key(text))
