"""``seipd secret``: credentials for the servers of tier 1. A value is never an argument."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_json, print_table, utc
from seipd.client.local import ask
from services.kernel.errors import InputError, NotFoundError, TooLargeError
from services.kernel.ids import b64u_encode

MAX_VALUE_BYTES = 8 * 1024


@click.group()
def secret() -> None:
    """Credentials that the servers of tier 1 need (for a DNS provider, an ACME account)."""


@secret.command(name="set")
@click.argument("name")
@click.argument("value", nargs=-1, metavar="")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="read the value there [standard input]",
)
@click.pass_context
def set_(context: click.Context, *, name: str, value: tuple[str, ...], file: Path | None) -> None:
    """Set the secret NAME, or another value of it, from standard input or --file.

    A line break at the end is no part of the value.
    """
    if value:
        raise InputError(
            "a value given as an argument can be read by every user of this machine",
            code="secret_in_arguments",
            mend="give it on standard input or by --file, and take another value for it",
        )
    body = {"name": name, "value": b64u_encode(_value(name, file))}
    found = ask(settings_of(context), "POST", "/api/secrets", body)
    if wants_json(context):
        print_json(found)
    else:
        click.echo(f"{found['name']}: version {found['version']} is set")


@secret.command()
@click.pass_context
def ls(context: click.Context) -> None:
    """List the secrets, without their values; 'here' says whether this server holds one."""
    found = ask(settings_of(context), "GET", "/api/secrets")["secrets"]
    if wants_json(context):
        print_json(found)
        return
    print_table(
        ("name", "version", "set by", "at", "here"),
        [
            (
                one["name"],
                one["version"],
                one["by"],
                utc(one["at_ms"]),
                "yes" if one["here"] else "no",
            )
            for one in found
        ],
    )


@secret.command()
@click.argument("name")
@click.pass_context
def rm(context: click.Context, *, name: str) -> None:
    """Remove the secret NAME from every server."""
    found = ask(settings_of(context), "POST", "/api/secrets/remove", {"name": name})
    if wants_json(context):
        print_json(found)
    else:
        click.echo(f"{found['name']}: removed")


@secret.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="so many [100]")
@click.pass_context
def audit(context: click.Context, *, limit: int) -> None:
    """Print who asked this server for which secret, and what came of it; oldest first."""
    found = ask(settings_of(context), "GET", f"/api/secrets/audit?limit={limit}")["entries"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("server_id", "secret", "version", "outcome")
    print_table(
        ("at", "server", *columns[1:]),
        [(utc(one["at_ms"]), *(one[column] for column in columns)) for one in found],
    )


def _value(name: str, file: Path | None) -> bytes:
    if file is not None:
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_VALUE_BYTES + 3)
        except OSError as error:
            raise NotFoundError(f"{file} can't be read: {error.strerror}") from error
    elif sys.stdin.isatty():
        data = str(click.prompt(name, hide_input=True, err=True)).encode()
    else:
        data = sys.stdin.buffer.read(MAX_VALUE_BYTES + 3)
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if len(data) > MAX_VALUE_BYTES:
        raise TooLargeError(f"a secret has at most {MAX_VALUE_BYTES} bytes")
    return data
