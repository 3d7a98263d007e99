"""``seipd invite``: one token on standard output, and for a person the line to type."""

from __future__ import annotations

import re

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_json
from seipd.client.local import ask
from services.kernel.errors import InputError

_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd]?)\Z", re.ASCII)
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> int:
    """Return the seconds of ``90``, ``15m``, ``1h`` or ``7d``.

    Raises:
        InputError: another form.
    """
    found = _DURATION.match(text)
    if found is None:
        raise InputError(f"{text[:20]!r} is not a duration", mend="write 90s, 15m, 1h or 7d")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


@click.command()
@click.argument("role", type=click.Choice(["server", "endpoint"]))
@click.option("--region", default=None, help="the region of the server")
@click.option("--customer", default="default", show_default=True, help="whose endpoint")
@click.option("--name", default=None, metavar="HOST", help="the only hostname it is good for")
@click.option("--expires", default="1h", show_default=True, help="90s, 15m, 1h, 7d")
@click.option("--uses", default=1, show_default=True, help="how many machines it lets in")
@click.pass_context
def invite(
    context: click.Context,
    *,
    role: str,
    region: str | None,
    customer: str,
    name: str | None,
    expires: str,
    uses: int,
) -> None:
    """Print one invitation token."""
    settings = settings_of(context)
    body = {
        "role": role,
        "customer": customer,
        "region": region,
        "name": name,
        "expires_seconds": parse_duration(expires),
        "uses": uses,
    }
    issued = ask(settings, "POST", "/api/invite", body)
    program = "seip" if role == "endpoint" else "seipd"
    then = "sudo seip up" if role == "endpoint" else "sudo seipd run"
    line = f"sudo {program} join {issued['token']} && {then}"
    if wants_json(context):
        print_json({**issued, "line": line})
        return
    click.echo(issued["token"])
    click.echo(f"on the new machine: {line}", err=True)
