"""``seipd dns``: what an operator says in the mesh's zone."""

from __future__ import annotations

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.cli.splitdns import split
from seipd.client.local import ask


@click.group()
def dns() -> None:
    """Records beside the mesh's own names."""


dns.add_command(split)


@dns.command(name="ls")
@click.pass_context
def list_records(context: click.Context) -> None:
    """List the records that were set; the mesh's own names are not among them."""
    rows = ask(settings_of(context), "GET", "/api/dns/records")
    if wants_json(context):
        print_json(rows)
        return
    lines = [
        (row["name"], row["ttl"], row["type"], value) for row in rows for value in row["values"]
    ]
    print_table(("name", "ttl", "type", "value"), lines)


@dns.command(name="set")
@click.argument("name")
@click.argument("rtype", metavar="TYPE")
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@click.option(
    "--ttl",
    type=click.IntRange(1, 86_400),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="1 to 86400",
)
@click.pass_context
def set_records(
    context: click.Context, *, name: str, rtype: str, values: tuple[str, ...], ttl: int
) -> None:
    """Set the records of TYPE at NAME, instead of those before.

    TYPE is A, AAAA, CAA, CNAME, MX, SRV or TXT; NAME lies below the mesh's domain, @ is the domain.
    """
    body = {"name": name, "type": rtype, "values": list(values), "ttl": ttl}
    answer = ask(settings_of(context), "POST", "/api/dns/set", body)
    if wants_json(context):
        print_json(answer)
    else:
        print_facts([(one, answer[one]) for one in ("name", "type", "ttl", "record")])


@dns.command()
@click.option("--anchor", is_flag=True, help="the key itself, as a resolver's trust anchor")
@click.pass_context
def ds(context: click.Context, *, anchor: bool) -> None:
    """Print the DS record to put in at the parent of the mesh's domain."""
    _print_ds(context, ask(settings_of(context), "GET", "/api/dns/ds"), anchor=anchor)


@dns.command()
@click.confirmation_option(prompt="The DS at the parent has to be changed at once. Go on?")
@click.pass_context
def rekey(context: click.Context) -> None:
    """Begin with another key for the DS: the one before was lost with the root's signer."""
    _print_ds(context, ask(settings_of(context), "POST", "/api/dns/rekey", {}), anchor=False)


def _print_ds(context: click.Context, answer: dict[str, str], *, anchor: bool) -> None:
    if wants_json(context):
        print_json(answer)
    else:
        click.echo(answer["dnskey" if anchor else "ds"])


@dns.command()
@click.argument("name")
@click.argument("rtype", metavar="[TYPE]", required=False)
@click.pass_context
def rm(context: click.Context, *, name: str, rtype: str | None) -> None:
    """Remove the records of TYPE at NAME; all of them where no type is named."""
    body = {"name": name, "type": rtype}
    answer = ask(settings_of(context), "POST", "/api/dns/remove", body)
    if wants_json(context):
        print_json(answer)
    else:
        click.echo(f"{answer['name']}: {', '.join(answer['types'])}")
