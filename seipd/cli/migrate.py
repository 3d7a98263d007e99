"""``seipd migrate``: the state forward, to the next protocol version."""

from __future__ import annotations

import sys

import click

from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask
from services.kernel.errors import InputError


@click.command()
@click.option(
    "--activate",
    type=click.IntRange(min=2),
    default=None,
    metavar="N",
    help="activate protocol version N in the whole mesh, for good",
)
@click.option("--force", is_flag=True, help="though servers lack it: they become read-only")
@click.option("--yes", is_flag=True, help="do not ask")
@click.pass_context
def migrate(context: click.Context, *, activate: int | None, force: bool, yes: bool) -> int:
    """Show the protocol version in force and who knows which, or activate the next."""
    settings = settings_of(context)
    if activate is None:
        if force or yes:
            raise InputError("--force and --yes go with --activate N")
        found = ask(settings, "GET", "/api/protocol")
        if wants_json(context):
            print_json(found)
        else:
            print_facts([("protocol version in force", found["in_force"])])
            rows = [[one["server_id"], one["known"]] for one in found["servers"]]
            print_table(("server", "knows up to"), rows)
        return 0
    if not yes and not _confirmed(activate):
        click.echo("nothing was changed", err=True)
        return NO
    body = {"version": activate, "force": force}
    done = ask(settings, "POST", "/api/protocol/activate", body)
    if wants_json(context):
        print_json(done)
    else:
        print_facts([("protocol version in force", done["in_force"]), ("record", done["record"])])
    return 0


def _confirmed(version: int) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            "an activation is for good, and nobody is here to be asked", mend="say --yes"
        )
    click.echo("There is no way back to an older version, and servers that lack it", err=True)
    click.echo("take no writes until they are upgraded.", err=True)
    return click.confirm(f"Activate protocol version {version}?", err=True)
