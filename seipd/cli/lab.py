"""``seipd lab``: a whole mesh in network namespaces on this machine, to try things on."""

from __future__ import annotations

import os
from pathlib import Path

import click

from seipd.cli.options import wants_json
from seipd.cli.output import print_json, print_table
from services.kernel.errors import ForbiddenError

_DEFAULT_FOLDER = "/run/seipd-lab"
_FOLDER = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(_DEFAULT_FOLDER),
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
@click.pass_context
def up(
    context: click.Context, /, *, servers: int, endpoints: int, prefix: str, folder: Path
) -> None:
    """Build it and start every program."""
    from seipd.lab.mesh import Lab
    from seipd.lab.plan import LabPlan

    plan = LabPlan(
        prefix=prefix, folder=folder.absolute(), server_count=servers, endpoint_count=endpoints
    )
    built = Lab(plan)
    built.up(lambda line: click.echo(line, err=True))
    if wants_json(context):
        print_json(built.overview())
        return
    where = "" if str(folder) == _DEFAULT_FOLDER else f" --dir {folder}"
    last = plan.hosts[-1].name
    click.echo(f"up; try: seipd lab exec{where} e1 -- ping -c 3 $(seipd lab address{where} {last})")


@lab.command()
@_FOLDER
@click.pass_context
def status(context: click.Context, /, *, folder: Path) -> int:
    """Show each host, its addresses, and the servers' state hashes; 1 if any is not up."""
    from seipd.lab.mesh import Lab

    rows = Lab.load(folder).overview()
    if wants_json(context):
        print_json(rows)
    else:
        columns = ("host", "up", "address", "tunnel_address", "state_hash")
        print_table(columns, [[row[column] for column in columns] for row in rows])
    return 0 if all(row["up"] for row in rows) else 1


@lab.command()
@click.argument("host")
@_FOLDER
@click.pass_context
def address(context: click.Context, /, *, host: str, folder: Path) -> None:
    """Print the tunnel address of a host."""
    from seipd.lab.mesh import Lab

    found = Lab.load(folder).tunnel_address(host)
    if wants_json(context):
        print_json({"host": host, "tunnel_address": found})
    else:
        click.echo(found)


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
@click.pass_context
def partition(context: click.Context, /, *, one: str, other: str, folder: Path) -> None:
    """Cut two hosts apart."""
    from seipd.lab import net
    from seipd.lab.mesh import Lab

    plan = Lab.load(folder).plan
    net.partition(plan.host(one), plan.host(other))
    if wants_json(context):
        print_json({"cut": [one, other]})
    else:
        click.echo(f"{one} and {other} no longer hear each other")


@lab.command()
@_FOLDER
@click.pass_context
def heal(context: click.Context, /, *, folder: Path) -> None:
    """Take every partition away."""
    from seipd.lab import net
    from seipd.lab.mesh import Lab

    count = net.heal(Lab.load(folder).plan.hosts)
    if wants_json(context):
        print_json({"healed_ends": count})
    else:
        click.echo("healed" if count else "nothing was cut")


@lab.command()
@click.option("--prefix", default=None, help="of a lab whose folder is lost")
@_FOLDER
@click.pass_context
def down(context: click.Context, /, *, prefix: str | None, folder: Path) -> None:
    """Remove every trace, also after a crash."""
    from seipd.lab.mesh import take_down

    removed = take_down(folder, prefix)
    if wants_json(context):
        print_json({"removed": removed})
    else:
        click.echo("down")
