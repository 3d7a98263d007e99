"""``seipd release``: what is installed here, and which releases are approved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table, utc
from seipd.client.local import ask
from services.kernel import canonical
from services.kernel.errors import InputError, NotFoundError, TooLargeError, WireError

MAX_FILE_BYTES = 16 * 1024


@click.group()
def release() -> None:
    """What is installed here, and which releases are approved."""


@release.command()
@click.pass_context
def show(context: click.Context) -> int:
    """Show what runs here and the manifests; exit 1 where no manifest approves of it."""
    found = ask(settings_of(context), "GET", "/api/attestation/manifests")
    running = found["running"]
    if wants_json(context):
        print_json(found)
    else:
        facts = [(name, value) for name, value in running.items() if not isinstance(value, list)]
        named = [name for name in ("altered", "strays") if running.get(name)]
        print_facts([*facts, *((name, ", ".join(running[name])) for name in named)])
        click.echo()
        print_table(
            ("version", "platform", "python", "minimum", "expires", "measurements"),
            [
                (
                    one["version"],
                    one["platform"],
                    one["python"],
                    one["minimum_version"],
                    datetime.fromtimestamp(one["expires_ms"] / 1000, UTC).date(),
                    len(one["measurements"]),
                )
                for one in found["manifests"]
            ],
        )
    return 0 if running["approved"] else NO


@release.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def import_(context: click.Context, *, file: Path) -> None:
    """Take the manifest in FILE."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"{file} can't be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise TooLargeError(f"{file} is over {MAX_FILE_BYTES} bytes")
    try:
        manifest = canonical.decode_canonical(data)
    except WireError as error:
        raise InputError(f"{file} is no manifest: {error}", code=error.code) from error
    found = ask(settings_of(context), "POST", "/api/attestation/manifests", manifest)
    if wants_json(context):
        print_json(found)
    else:
        what = "taken" if found["new"] else "known already"
        click.echo(f"{found['version']} {found['platform']}: {what}")


@release.command()
@click.pass_context
def fetch(context: click.Context) -> None:
    """Fetch manifests from the releases URL now."""
    found = ask(settings_of(context), "POST", "/api/attestation/fetch")
    if wants_json(context):
        print_json(found)
    else:
        click.echo(f"{found['new_count']} new manifests")


@release.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="so many [100]")
@click.pass_context
def refused(context: click.Context, *, limit: int) -> None:
    """Print which manifests were refused here, when, and why; oldest first."""
    path = f"/api/attestation/manifests/refused?limit={limit}"
    found = ask(settings_of(context), "GET", path)["refused"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("source", "code", "what")
    rows = [(utc(one["at_ms"]), *(one[column] for column in columns)) for one in found]
    print_table(("at", "from", *columns[1:]), rows)
