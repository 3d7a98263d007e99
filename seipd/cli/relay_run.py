"""``seipd relay run``: a relay on a machine that is no server of the mesh."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seipd.cli.options import wants_json
from seipd.cli.output import print_facts, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.relayd.home import KnownMesh, RelayHome, Where

DEFAULT_STATE = "/var/lib/seipd-relay"


@click.command()
@click.option("--mesh", envvar="SEIPD_RELAY_MESH", help="the mesh's id, as seipd status tells it")
@click.option(
    "--server",
    "servers",
    multiple=True,
    envvar="SEIPD_RELAY_SERVERS",
    metavar="HOST:PORT",
    help="public HTTPS of a server of the mesh, one or more",
)
@click.option(
    "--public-address",
    "addresses",
    multiple=True,
    required=True,
    envvar="SEIPD_RELAY_ADDRESSES",
    metavar="ADDR",
    help="where others reach this machine: IPv4, IPv6 or both",
)
@click.option("--region", required=True, envvar="SEIPD_RELAY_REGION", help="where that is")
@click.option(
    "--relay-port",
    "port",
    type=click.IntRange(1024, 65_279),
    default=9103,
    envvar="SEIPD_RELAY_PORT",
    help="udp; the 256 ports after it, too [9103]",
)
@click.option("--bind-address", default="0.0.0.0", help="address to listen on [0.0.0.0]")  # noqa: S104
@click.option(
    "--state",
    default=DEFAULT_STATE,
    envvar="SEIPD_RELAY_STATE",
    metavar="DIR",
    help=f"where the relay's key lies [{DEFAULT_STATE}]",
)
@click.pass_context
def run(
    context: click.Context,
    *,
    mesh: str | None,
    servers: tuple[str, ...],
    addresses: tuple[str, ...],
    region: str,
    port: int,
    bind_address: str,
    state: str,
) -> None:
    """Carry for a mesh on a machine that is no server of it, in the foreground.

    Prints the line by which an operator of the mesh registers it. The mesh and its servers are
    remembered: --mesh and --server are for the first start.
    """
    from seipd.relayd.app import Plan, run_relay
    from seipd.relayd.home import RelayHome
    from services.runtime.clock import SystemClock
    from services.runtime.logs import configure_logging

    shared = context.find_root().obj or {}
    configure_logging(shared.get("log_level") or "info", shared.get("log_format") or "text")
    home = RelayHome(Path(state).absolute())
    key = home.key()
    known = _mesh_of(home, mesh, servers)
    where = _where(addresses, port=port, region=region)
    text = home.introduction(key, known.mesh_id, where, SystemClock().now_ms())
    _print(context, text, where)
    plan = Plan(home=home, key=key, mesh=known, where=where, bind_address=bind_address)
    asyncio.run(run_relay(plan))


def _mesh_of(home: RelayHome, mesh: str | None, servers: Sequence[str]) -> KnownMesh:
    """Return the mesh: what is said now goes before what was said at the first start."""
    from seipd.relayd.home import KnownMesh
    from services.kernel.errors import ConfigError
    from services.kernel.ids import parse_mesh_id

    held = home.mesh()
    if mesh is not None:
        mesh_id = parse_mesh_id(mesh)
    elif held is not None:
        mesh_id = held.mesh_id
    else:
        raise ConfigError("say which mesh", mend="--mesh ID, as seipd status tells it")
    remembered = held.servers if held is not None and held.mesh_id == mesh_id else ()
    found = tuple(dict.fromkeys((*servers, *remembered)))
    if not found:
        raise ConfigError("say where a server of the mesh is", mend="--server HOST:PORT")
    known = KnownMesh(mesh_id=mesh_id, servers=found)
    home.save_mesh(known)
    return known


def _where(addresses: Sequence[str], *, port: int, region: str) -> Where:
    from seipd.relayd.home import Where
    from services.kernel.errors import ConfigError

    hosts = {4: "", 6: ""}
    for text in addresses:
        try:
            version = ip_address(text).version
        except ValueError as error:
            raise ConfigError(f"--public-address {text[:60]}: not an IP address") from error
        if hosts[version]:
            raise ConfigError(f"--public-address: two of IPv{version}; one is told")
        hosts[version] = text
    return Where(host=hosts[4], host6=hosts[6], port=port, region=region)


def _print(context: click.Context, text: str, where: Where) -> None:
    from services.authority.relays.introductions import introduction_from_text

    relay_id = introduction_from_text(text).relay_id
    line = f"seipd relay register {text} --customer NAME"
    if wants_json(context):
        print_json({"relay_id": relay_id, "introduction": text, "register": line, **asdict(where)})
        return
    print_facts([("relay", relay_id), ("region", where.region)])
    click.echo("An operator of the mesh types this, once, on a server (without --customer for")
    click.echo("a relay of the mesh's own):")
    click.echo(line)
