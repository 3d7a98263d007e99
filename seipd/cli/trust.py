"""``seipd trust``: who is trusted how far and why, who is not, and the proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask
from services.kernel import canonical
from services.kernel.errors import NotFoundError

UNTRUSTED = "untrusted"


@click.group()
def trust() -> None:
    """Trust in servers."""


@trust.command()
@click.pass_context
def status(context: click.Context) -> int:
    """List the servers, and what endpoints reported; exit 1 at an alarm or an untrusted one."""
    answer = ask(settings_of(context), "GET", "/api/trust/status")
    found, reports, alarm = answer["servers"], answer["reports"], answer["alarm"]
    if wants_json(context):
        print_json(answer)
    else:
        columns = ("server_id", "state", "tier", "reason", "size", "record")
        print_table(
            ("server", "state", "tier", "reason", "at size", "record"),
            [[one[column] for column in columns] for one in found],
        )
        if reports:
            click.echo()
            print_table(
                ("reported by", "of server", "what it was shown", "times"),
                [[one[name] for name in ("by", "server_id", "what", "times")] for one in reports],
            )
        if alarm:
            click.echo(f"\nalarm: {alarm}")
    return NO if alarm or any(one["state"] == UNTRUSTED for one in found) else 0


@trust.command()
@click.argument("server", metavar="SERVER")
@click.option(
    "--proof",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write the proof there; seipd-verify equivocation checks it offline",
)
@click.pass_context
def peer(context: click.Context, *, server: str, file: Path | None) -> int:
    """Show one server's tier and each reason; exit 1 where it is untrusted."""
    found = ask(settings_of(context), "GET", f"/api/trust/peer/{quote(server, safe='')}")
    if file is not None:
        return _export(found, file)
    if wants_json(context):
        print_json(found)
    else:
        _print_peer(found)
    return NO if found["state"] == UNTRUSTED else 0


def _print_peer(found: dict[str, Any]) -> None:
    apart = ("proof", "checks", "verdicts", "may")
    facts = [(name, value) for name, value in found.items() if name not in apart]
    print_facts([*facts, ("may", "; ".join(found["may"]))])
    if found["checks"]:
        click.echo()
        print_table(
            ("check here", "outcome", "code", "what"),
            [
                [one[name] for name in ("check", "outcome", "code", "what")]
                for one in found["checks"]
            ],
        )
    if found["verdicts"]:
        click.echo()
        print_table(
            ("witness", "says tier", "because of", "counts", "record"),
            [
                [name, one["tier"], ", ".join(one["reasons"]), one["counts"], one["record"]]
                for name, one in found["verdicts"].items()
            ],
        )


def _export(found: dict[str, Any], file: Path) -> int:
    if found["proof"] is None:
        raise NotFoundError(f"nothing is proved against {found['server_id']}")
    file.write_bytes(canonical.encode(found["proof"]))
    return 0
