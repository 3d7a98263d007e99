"""``seipd governance``: what only a vote changes."""

from __future__ import annotations

from typing import Any

import click

from seipd.cli.invite import parse_duration
from seipd.cli.options import parameter_value, settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask

SHORT_ID_CHARS = 12


@click.group()
def governance() -> None:
    """What holds for the whole mesh, and changes only by a vote of tier 1."""


@governance.command()
@click.pass_context
def params(context: click.Context) -> None:
    """List the parameters: what each is and may be."""
    found = ask(settings_of(context), "GET", "/api/governance/params")["parameters"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("name", "value", "default", "range", "meaning")
    print_table(columns, [[one[column] for column in columns] for one in found])


@governance.command()
@click.argument("parameter")
@click.argument("value")
@click.option("--expires", default="7d", show_default=True, help="90s, 15m, 1h, 7d")
@click.option("--reason", default="", help="one line for those who vote")
@click.option("--old", default=None, metavar="VALUE", help="refuse unless it is this now")
@click.pass_context
def propose(
    context: click.Context,
    *,
    parameter: str,
    value: str,
    expires: str,
    reason: str,
    old: str | None,
) -> None:
    """Propose that PARAMETER becomes VALUE; this server's own vote is still to be cast."""
    body = {
        "parameter": parameter,
        "new_value": parameter_value(value),
        "old_value": None if old is None else parameter_value(old),
        "expires_seconds": parse_duration(expires),
        "reason": reason,
    }
    found = ask(settings_of(context), "POST", "/api/governance/propose", body)
    _show(context, found)
    click.echo(f"vote with: seipd governance vote {found['id'][:SHORT_ID_CHARS]} approve", err=True)


@governance.command()
@click.argument("proposal")
@click.argument("choice", type=click.Choice(["approve", "deny"]))
@click.pass_context
def vote(context: click.Context, *, proposal: str, choice: str) -> None:
    """Cast this server's vote on PROPOSAL (its id, or how that begins); once and for good."""
    body = {"proposal": proposal, "approve": choice == "approve"}
    _show(context, ask(settings_of(context), "POST", "/api/governance/vote", body))


@governance.command()
@click.pass_context
def proposals(context: click.Context) -> None:
    """List the proposals, and votes that have no effect."""
    found = ask(settings_of(context), "GET", "/api/governance/proposals")["proposals"]
    if wants_json(context):
        print_json(found)
        return
    print_table(
        ("proposal", "parameter", "from", "to", "state", "approved", "denied", "needed", "reason"),
        [
            [
                one["id"][:SHORT_ID_CHARS],
                *(one[name] for name in ("parameter", "old_value", "new_value")),
                f"{one['state']}: {one['why']}" if one["why"] else one["state"],
                *(one[name] for name in ("approvals", "denials", "needed")),
                one["reason"] or None,
            ]
            for one in found
        ],
    )
    idle = [(one["id"], void) for one in found for void in one["without_effect"]]
    if idle:
        click.echo("\nvotes without effect:")
        print_table(
            ("proposal", "server", "why", "record"),
            [
                [of[:SHORT_ID_CHARS], *(void[n] for n in ("server", "why", "record"))]
                for of, void in idle
            ],
        )


def _show(context: click.Context, found: dict[str, Any]) -> None:
    if wants_json(context):
        print_json(found)
        return
    of = f"of {found['electors']}, {found['needed']} are needed"
    print_facts(
        [
            ("proposal", found["id"]),
            ("change", f"{found['parameter']}: {found['old_value']} -> {found['new_value']}"),
            ("state", found["state"]),
            ("approved", f"{found['approvals']} {of}"),
            ("denied", found["denials"]),
        ]
    )
