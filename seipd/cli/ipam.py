"""``seipd ipam``: slices, addresses and blocks."""

from __future__ import annotations

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json
from seipd.client.local import ask


@click.group()
def ipam() -> None:
    """Addresses and blocks."""


@ipam.command(name="ls")
@click.pass_context
def list_slices(context: click.Context) -> None:
    """Show this server's slices and how full they are."""
    found = ask(settings_of(context), "GET", "/api/ipam")
    if wants_json(context):
        print_json(found)
    else:
        print_facts(list(found.items()))


@ipam.command()
@click.argument("address")
@click.pass_context
def show(context: click.Context, *, address: str) -> None:
    """Show who holds an address, since when and by which record."""
    found = ask(settings_of(context), "GET", f"/api/explain?subject={address}")
    if wants_json(context):
        print_json(found)
    else:
        print_facts(list(found.items()))


@ipam.command()
@click.argument("customer", metavar="CUSTOMER_NODE")
@click.option("--pool", type=click.Choice(["private", "shared"]), default="private")
@click.option("--prefix", default=30, show_default=True, help="20 to 30")
@click.pass_context
def allocate(context: click.Context, *, customer: str, pool: str, prefix: int) -> None:
    """Give a customer a private subnet or a shared block."""
    body = {"customer": customer, "pool": pool, "prefix": prefix}
    found = ask(settings_of(context), "POST", "/api/ipam/allocate", body)
    if wants_json(context):
        print_json(found)
    else:
        click.echo(found["block"])


@ipam.command()
@click.argument("what", metavar="BLOCK|NODE")
@click.pass_context
def release(context: click.Context, *, what: str) -> None:
    """Take back a block, or the address of a node."""
    body = {"block": what} if "/" in what else {"node": what}
    print_json(ask(settings_of(context), "POST", "/api/ipam/release", body))
