"""``seipd root``: the root key chain."""

from __future__ import annotations

import click

from seipd.cli.exits import NO
from seipd.cli.invite import parse_duration
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.cli.recovery import recover
from seipd.cli.shares import shares
from seipd.client.local import ask

RECORDS = ("record", "named_recovery_key")


@click.group()
def root() -> None:
    """The root key chain."""


root.add_command(shares)
root.add_command(recover)


@root.command()
@click.pass_context
def chain(context: click.Context) -> int:
    """List the generations of the root key; exit 1 where two keys follow the same one."""
    answer = ask(settings_of(context), "GET", "/api/root/chain")
    found, fork = answer["chain"], answer["fork"]
    if wants_json(context):
        print_json(found)
    else:
        columns = ("generation", "public_key", "state", "activated_at", "expires_at", "closes_at")
        print_table(columns, [[one[column] or "-" for column in columns] for one in found])
    if fork is None:
        return 0
    both = " and ".join(one["actor"] for one in fork["records"])
    click.echo(
        f"ROOT_FORK: {both} both follow generation {fork['generation']}: nothing of the root "
        "counts until seipd root recover brings a new one",
        err=True,
    )
    return NO


@root.command()
@click.pass_context
def show(context: click.Context) -> None:
    """Show the root key in force."""
    newest = ask(settings_of(context), "GET", "/api/root/chain")["chain"][-1]
    if wants_json(context):
        print_json(newest)
    else:
        print_facts([(name, value) for name, value in newest.items() if name not in RECORDS])


@root.command()
@click.option(
    "--overlap",
    default=None,
    metavar="1d",
    help="how long certificates that the key before has signed stay good  [root_overlap_s]",
)
@click.pass_context
def rotate(context: click.Context, overlap: str | None) -> None:
    """Bring the next root key into force; nothing has to be restarted."""
    body = {} if overlap is None else {"overlap_seconds": parse_duration(overlap)}
    chain = ask(settings_of(context), "POST", "/api/root/rotate", body)["chain"]
    newest = chain[-1]
    if wants_json(context):
        print_json(newest)
    else:
        print_facts([(name, value) for name, value in newest.items() if name not in RECORDS])
