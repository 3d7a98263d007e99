"""``seipd lab``: a whole mesh in network namespaces on this machine, to try things on."""

from __future__ import annotations

import os
from pathlib import Path

import click

from seipd.cli.options import wants_json
from seipd.cli.output import print_json, print_table
from services.kernel.errors import ForbiddenError

_FOLDER = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("/run/seipd-lab"),
    show_default=True,
    help="where the lab lies",
)


@click.group()
def lab() -> None:
    """Build a mesh in network namespaces and play with it."""
    if os.geteuid() != 0:
        raise ForbiddenError("a lab needs root", mend="run it with sudo")


@lab.command()
@click.option("--servers", default=2, show_default=True)
@click.option("--endpoints", default=2, show_default=True)
@click.option("--prefix", default="seiplab", show_default=True, help="of the namespaces' names")
@_FOLDER
def up(*, servers: int, endpoints: int, prefix: str, folder: Path) -> None:
    """Build it and start every program."""
    from seipd.lab.mesh import Lab
    from seipd.lab.plan import LabPlan

    plan = LabPlan(prefix=prefix, folder=folder, server_count=servers, endpoint_count=endpoints)
    built = Lab(plan)
    built.up(lambda line: click.echo(line, err=True))
    click.echo("up; try: seipd lab exec e1 -- ping -c 3 $(seipd lab address e2)")


@lab.command()
@_FOLDER
@click.pass_context
def status(context: click.Context, *, folder: Path) -> None:
    """Show each host, its addresses, and the servers' state hashes."""
    from seipd.lab.mesh import Lab

    rows = Lab.load(folder).overview()
    if wants_json(context):
        print_json(rows)
        return
    columns = ("host", "up", "address", "tunnel_address", "state_hash")
    print_table(columns, [[row[column] for column in columns] for row in rows])


@lab.command()
@click.argument("host")
@_FOLDER
def address(*, host: str, folder: Path) -> None:
    """Print the tunnel address of a host."""
    from seipd.lab.mesh import Lab

    rows = Lab.load(folder).overview()
    found = {row["host"]: row["tunnel_address"] for row in rows}
    Lab.load(folder).plan.host(host)
    click.echo(found[host])


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_FOLDER
def execute(*, host: str, command: tuple[str, ...], folder: Path) -> None:
    """Run a command on a host: lab exec e1 -- ping -c 3 10.64.0.1."""
    from seipd.lab.mesh import Lab

    found = Lab.load(folder)
    place = found.plan.host(host)
    words = [*place.enter(), *command]
    os.execvpe(words[0], words, found.environment(place))  # noqa: S606 (what the user asked for)


@lab.command()
@click.argument("one")
@click.argument("other")
@_FOLDER
def partition(*, one: str, other: str, folder: Path) -> None:
    """Cut two hosts apart."""
    from seipd.lab import net
    from seipd.lab.mesh import Lab

    plan = Lab.load(folder).plan
    net.partition(plan.host(one), plan.host(other))
    click.echo(f"{one} and {other} no longer hear each other")


@lab.command()
@_FOLDER
def heal(*, folder: Path) -> None:
    """Take every partition away."""
    from seipd.lab import net
    from seipd.lab.mesh import Lab

    count = net.heal(Lab.load(folder).plan.hosts)
    click.echo("healed" if count else "nothing was cut")


@lab.command()
@_FOLDER
def down(*, folder: Path) -> None:
    """Remove every trace, also after a crash."""
    from seipd.lab.mesh import Lab

    Lab.load(folder).down()
    click.echo("down")
