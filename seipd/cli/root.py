"""``seipd root`` and ``seipd server``: the root key chain and the certificates that it signed."""

from __future__ import annotations

import click

from seipd.cli.daemon_client import ask
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from services.kernel.errors import NotFoundError


@click.group()
def root() -> None:
    """The root key chain."""


@root.command()
@click.pass_context
def chain(context: click.Context) -> None:
    """List the generations of the root key."""
    found = ask(settings_of(context), "GET", "/api/root/chain")["chain"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("generation", "public_key", "state", "activated_at", "expires_at")
    print_table(columns, [[one[column] for column in columns] for one in found])


@root.command()
@click.pass_context
def show(context: click.Context) -> None:
    """Show the root key in force."""
    newest = ask(settings_of(context), "GET", "/api/root/chain")["chain"][-1]
    if wants_json(context):
        print_json(newest)
    else:
        print_facts(list(newest.items()))


@click.group()
def server() -> None:
    """Certificates of servers."""


@server.command(name="ls")
@click.pass_context
def list_servers(context: click.Context) -> None:
    """List the servers of the roster."""
    found = ask(settings_of(context), "GET", "/api/servers")["servers"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("server_id", "region", "address", "key")
    print_table(columns, [[one[column] for column in columns] for one in found])


@server.command(name="show")
@click.argument("server_id")
@click.pass_context
def show_server(context: click.Context, *, server_id: str) -> None:
    """Show one server's certificate and the record that gave it."""
    found = ask(settings_of(context), "GET", f"/api/explain?subject={server_id}")
    if found["what"] != "server":
        raise NotFoundError(f"no server is called {server_id[:40]}")
    if wants_json(context):
        print_json(found)
    else:
        print_facts(list(found.items()))
