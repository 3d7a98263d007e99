"""``seipd ddns``: this server's address at a name in somebody else's zone."""

from __future__ import annotations

from typing import Any

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, utc
from seipd.client.local import ask


@click.group()
def ddns() -> None:
    """Keep the public address of this server at a name elsewhere."""


@ddns.command()
@click.pass_context
def status(context: click.Context) -> None:
    """Show which address stands where, and what is in the way."""
    _print(context, ask(settings_of(context), "GET", "/api/ddns/status"))


@ddns.command()
@click.pass_context
def update(context: click.Context) -> None:
    """Tell the address now, whether it changed or not."""
    _print(context, ask(settings_of(context), "POST", "/api/ddns/update", {}))


def _print(context: click.Context, answer: dict[str, Any]) -> None:
    if wants_json(context):
        print_json(answer)
        return
    if answer["way"] is None:
        click.echo("not used: seipd.toml names no place (ddns, ddns_name)")
        return
    told_at_ms = answer["told_at_ms"]
    told = f"{answer['address']} since {utc(told_at_ms)}" if told_at_ms else "nothing yet"
    facts = [(one, answer[one]) for one in ("name", "zone", "way", "server") if answer[one]]
    print_facts([*facts, ("told", told)])
    if answer["trouble"]:
        print_facts([("trouble", answer["trouble"]), ("failures", answer["failures"])])
