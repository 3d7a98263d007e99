"""``seipd ledger``: read, prove and verify the logs."""

from __future__ import annotations

from pathlib import Path

import click

from seipd.cli.exits import NO
from seipd.cli.invite import parse_duration
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_json, print_table, progress, utc
from seipd.client.local import ask


@click.group()
def ledger() -> None:
    """The tamper-evident ledger."""


@ledger.command()
@click.pass_context
def modules(context: click.Context) -> None:
    """List the logs held here, their sizes and verifier keys."""
    found = ask(settings_of(context), "GET", "/api/ledger/modules")["modules"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("module", "size", "root_hash", "vkey")
    print_table(columns, [[one[column] for column in columns] for one in found])


@ledger.command()
@click.argument("module", default="feed")
@click.pass_context
def checkpoint(context: click.Context, *, module: str) -> None:
    """Print the newest signed checkpoint of a log."""
    found = ask(settings_of(context), "GET", f"/ledger/{module}/newest")
    if wants_json(context):
        print_json(found)
    else:
        click.echo(found["checkpoint"], nl=False)


@ledger.command()
@click.argument("module", default="feed")
@click.option("--start", default=0, show_default=True, help="the first index")
@click.option("--limit", default=50, show_default=True, help="how many, 256 at most")
@click.pass_context
def read(context: click.Context, *, module: str, start: int, limit: int) -> None:
    """Print entries of a log."""
    found = ask(
        settings_of(context), "GET", f"/ledger/{module}/entries?start={start}&limit={limit}"
    )
    if wants_json(context):
        print_json(found)
        return
    rows = [
        (start + number, one["record"]["kind"], one["record"]["id"], one["record"]["actor"])
        for number, one in enumerate(found["entries"])
    ]
    print_table(("index", "kind", "id", "actor"), rows)


@ledger.command()
@click.argument("index", type=int)
@click.option("--module", default="feed", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="write it there")
@click.pass_context
def prove(context: click.Context, *, index: int, module: str, out: Path | None) -> None:
    """Print a C2SP tlog-proof of one entry; seipd-verify checks it offline."""
    found = ask(settings_of(context), "GET", f"/ledger/{module}/proof?index={index}")
    if out is not None:
        out.write_text(found["proof"], encoding="utf-8")
    elif wants_json(context):
        print_json(found)
    else:
        click.echo(found["proof"], nl=False)


@ledger.command()
@click.pass_context
def verify(context: click.Context) -> int:
    """Re-derive every tile of every log; exit 1 and name the file where one is damaged."""
    with progress("verifying"):
        found = ask(settings_of(context), "GET", "/api/ledger/verify")
    damaged = [one for one in found["logs"] if not one["good"]]
    if wants_json(context):
        print_json({**found, "good": not damaged})
    else:
        for one in found["logs"]:
            if one["good"]:
                click.echo(f"good: {one['path']}, {one['size']} entries")
            else:
                click.echo(f"damaged: {one['damaged']}: {one['why']}")
    return NO if damaged else 0


@ledger.command()
@click.option("--since", metavar="7d", help="no older than that  [of any age]")
@click.option(
    "--limit", default=100, show_default=True, help="so many of the newest, 10000 at most"
)
@click.option(
    "--anchors", is_flag=True, help="what all servers said in their feeds that it came to, instead"
)
@click.pass_context
def audit(context: click.Context, *, since: str | None, limit: int, anchors: bool) -> None:
    """Print what the signer here was asked: who, for which key, and how it ended.

    ``seipd-verify audit --anchors`` takes what --anchors --json prints.
    """
    if anchors:
        _print_anchors(context)
        return
    query = f"limit={limit}"
    if since is not None:
        query += f"&seconds={parse_duration(since)}"
    found = ask(settings_of(context), "GET", f"/api/ledger/audit?{query}")
    if wants_json(context):
        print_json(found)
        return
    columns = ("call", "caller", "scope", "key_id", "outcome", "reason")
    rows = [
        (utc(one["at_ms"]), *(one.get(column) or "-" for column in columns))
        for one in found["entries"]
    ]
    print_table(("at", *columns), rows)
    if found["behind"]:
        click.echo(f"the newest may be missing: {found['behind']}", err=True)


def _print_anchors(context: click.Context) -> None:
    found = ask(settings_of(context), "GET", "/api/ledger/audit/anchors")
    if wants_json(context):
        print_json(found)
        return
    columns = ("server_id", "key", "month", "size", "root", "record")
    rows = [(utc(one["at_ms"]), *(one[name] for name in columns)) for one in found["anchors"]]
    print_table(("at", "server", "signer's key", "month", "entries", "root", "record"), rows)
