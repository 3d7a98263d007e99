"""``seipd join``: this machine becomes a server of the token's mesh."""

from __future__ import annotations

import asyncio

import click

from seipd.cli.options import network_options, settings_of, wants_json
from seipd.cli.output import print_facts, print_json, progress
from seipd.cli.token import TOKEN


@click.command()
@click.argument("token", type=TOKEN)
@click.option("--region", default=None, help="this server's region [eu-central]")
@click.option(
    "--from-genesis",
    is_flag=True,
    help="fold the whole ledger instead of beginning with the state that the witnesses agree on",
)
@network_options
@click.pass_context
def join(
    context: click.Context,
    /,
    token: str,
    region: str | None,
    *,
    from_genesis: bool,
    **flags: object,
) -> None:
    """Join the mesh of TOKEN (- reads it) as a server; ``seipd run`` is then all that is left."""
    from seipd.daemon.joining import join_mesh

    settings = settings_of(context, **flags)
    with progress("joining"):
        asked = join_mesh(settings, token, region, from_genesis=from_genesis, tell=_tell)
        joined = asyncio.run(asked)
    if wants_json(context):
        print_json(joined)
        return
    print_facts([(name.replace("_", " "), value) for name, value in joined.items()])
    click.echo("joined; start it with: sudo seipd run, or scripts/up with systemd", err=True)


def _tell(line: str) -> None:
    click.echo(line, err=True)
