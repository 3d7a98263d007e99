"""``seipd root shares``: what would bring a lost root back."""

from __future__ import annotations

from typing import Any

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_json, print_table
from seipd.client.local import ask


@click.command()
@click.option("--refresh", is_flag=True, help="deal a new recovery key now; where the root key is")
@click.pass_context
def shares(context: click.Context, *, refresh: bool) -> None:
    """Show who holds shares of the recovery key, and what each found of its own."""
    settings = settings_of(context)
    if refresh:
        dealt = ask(settings, "POST", "/api/root/shares")
        if dealt["path"]:
            warn_of_file(dealt["path"])
    found = ask(settings, "GET", "/api/root/shares")
    if wants_json(context):
        print_json(found)
        return
    for one in (found["in_force"], found["under_way"]):
        if one is not None:
            _print_dealing(one)
    if found["in_force"] is None:
        click.echo("no recovery key is in force: were the root lost, it would stay lost", err=True)


def _print_dealing(one: dict[str, Any]) -> None:
    where = "in a file of the operator" if one["offline"] else f"{one['threshold']} shares needed"
    click.echo(f"dealing {one['number']}, {one['state']}: {where}")
    if one["holders"]:
        if one["state"] == "in force" and one["able"] < one["threshold"]:
            click.echo(
                f"only {one['able']} can give theirs: were the root lost, it would stay lost",
                err=True,
            )
        rows = [[row["server_id"], row["share"], row["said"]] for row in one["holders"]]
        print_table(("server", "share", "found"), rows)


def warn_of_file(path: str) -> None:
    """Tell the operator of a recovery file that lies beside the root key, where it helps nobody."""
    click.echo(f"the recovery key lies in {path}, in the clear", err=True)
    click.echo("Carry it to where nobody finds it and fire does not, and remove it here.", err=True)
