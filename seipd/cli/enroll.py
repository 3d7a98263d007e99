"""``seipd server enroll``: votes on new servers, where the mesh asks for them."""

from __future__ import annotations

from typing import Any

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask


@click.group(invoke_without_command=True)
@click.pass_context
def enroll(context: click.Context) -> None:
    """List the ballots on new servers; approve or deny one in the name of this server."""
    if context.invoked_subcommand is not None:
        return
    found = ask(settings_of(context), "GET", "/api/enrollment/status")
    if wants_json(context):
        print_json(found)
        return
    share = f", {found['quorum_percent']} % of tier 1" if found["policy"] == "quorum" else ""
    print_facts([("policy", f"{found['policy']}{share}")])
    print_ballots(found["ballots"])


@enroll.command()
@click.argument("server_id", metavar="SERVER")
@click.pass_context
def approve(context: click.Context, *, server_id: str) -> None:
    """Approve a new server; once and for good."""
    _vote(context, server_id, approves=True)


@enroll.command()
@click.argument("server_id", metavar="SERVER")
@click.pass_context
def deny(context: click.Context, *, server_id: str) -> None:
    """Deny a new server; once and for good."""
    _vote(context, server_id, approves=False)


def print_ballots(ballots: list[dict[str, Any]]) -> None:
    """Print ballots as a table."""
    if not ballots:
        return
    columns = ("server_id", "region", "state", "approvals", "denials", "needed", "electors", "try")
    print_table(
        ("ballot on", "region", "state", "approved", "denied", "needed", "of", "try"),
        [[one[column] for column in columns] for one in ballots],
    )


def _vote(context: click.Context, server_id: str, *, approves: bool) -> None:
    body = {"server": server_id, "approve": approves}
    found = ask(settings_of(context), "POST", "/api/enrollment/vote", body)
    if wants_json(context):
        print_json(found)
        return
    print_facts(
        [
            ("server", found["server_id"]),
            ("key", found["key"]),
            ("ballot", found["state"]),
            ("approved", f"{found['approvals']} of {found['electors']}, needed {found['needed']}"),
        ]
    )
