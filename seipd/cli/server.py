"""``seipd server``: certificates of servers, and their end."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

import click

from seipd.cli.enroll import enroll, print_ballots
from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask
from services.kernel.errors import InputError, NotFoundError


@click.group()
def server() -> None:
    """Certificates of servers."""


server.add_command(enroll)


@server.command(name="ls")
@click.pass_context
def list_servers(context: click.Context) -> None:
    """List the servers of the roster, those that were revoked, and ballots on new ones."""
    found = ask(settings_of(context), "GET", "/api/servers/roster")["servers"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("server_id", "region", "state", "address", "backbone_address")
    print_table(
        ("server", "region", "state", "address", "backbone", "slices"),
        [[*(one[column] for column in columns), ", ".join(one["slices"]) or None] for one in found],
    )
    ballots = [one["ballot"] for one in found if one["ballot"] is not None]
    if ballots:
        click.echo()
        print_ballots(ballots)


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.pass_context
def show(context: click.Context, *, server_id: str) -> None:
    """Show one server's certificate, the record that gave it, and the one that ended it."""
    found = ask(settings_of(context), "GET", f"/api/explain?subject={quote(server_id, safe='')}")
    if found["what"] != "server":
        raise NotFoundError(f"no server is called {server_id[:40]}")
    if wants_json(context):
        print_json(found)
    else:
        print_facts(list(found.items()))


@server.command()
@click.argument("server_id", metavar="SERVER")
@click.option("--heir", default=None, metavar="SERVER", help="takes over its slices and addresses")
@click.option(
    "--size",
    type=click.IntRange(min=0),
    default=None,
    help="how many entries of its feed count [all that are held here]",
)
@click.option("--yes", is_flag=True, help="do not ask")
@click.pass_context
def revoke(
    context: click.Context, *, server_id: str, heir: str | None, size: int | None, yes: bool
) -> int:
    """Revoke a server for good. Only where the root key is."""
    settings = settings_of(context)
    if not yes and not _confirmed(server_id, heir, size):
        click.echo("nothing was changed", err=True)
        return NO
    body = {"server": server_id, "heir": heir, "size": size}
    found = ask(settings, "POST", "/api/servers/revoke", body)
    if wants_json(context):
        print_json(found)
    else:
        print_facts(_facts(found))
    return 0


def _confirmed(server_id: str, heir: str | None, size: int | None) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            "a revocation is for good, and nobody is here to be asked", mend="say --yes"
        )
    counts = "all that is held here" if size is None else f"the first {size} entries"
    where = f"go to {heir}" if heir else "stay out of use"
    click.echo(f"{server_id} can never come back. Of its feed counts: {counts}.", err=True)
    click.echo(f"Its slices and the addresses from them {where}.", err=True)
    return click.confirm("Revoke it?", err=True)


def _facts(found: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        ("revoked", found["server_id"]),
        ("entries that count", found["size"]),
        ("heir", found["heir"]),
        ("slices", ", ".join(found["slices"]) or None),
        ("roster", found["roster_number"]),
        ("witnesses", ", ".join(found["witnesses"])),
    ]
