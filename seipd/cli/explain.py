"""``seipd explain``: why A reaches B; who holds an address, a name or a key, and since when."""

from __future__ import annotations

import datetime
from urllib.parse import urlencode

import click

from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json
from seipd.client.local import ask


@click.command()
@click.argument("subject")
@click.argument("other", required=False)
@click.argument("traffic", required=False)
@click.pass_context
def explain(context: click.Context, *, subject: str, other: str | None, traffic: str | None) -> int:
    """Explain an ADDRESS, NAME or KEY, or whether SUBJECT reaches OTHER with TRAFFIC (tcp/22)."""
    asked = {"subject": subject, "other": other, "traffic": traffic}
    query = urlencode({name: value for name, value in asked.items() if value})
    found = ask(settings_of(context), "GET", f"/api/explain?{query}")
    if wants_json(context):
        print_json(found)
    elif other:
        click.echo(found["reason"])
        click.echo("path: " + " → ".join(found["path"]))
    else:
        since = found.pop("since_ms", None)
        facts = [(name.replace("_", " "), value) for name, value in found.items()]
        if since is not None:
            when = datetime.datetime.fromtimestamp(since / 1000, tz=datetime.UTC)
            facts.append(("since", f"{when:%Y-%m-%d %H:%M:%S} UTC"))
        print_facts(facts)
    return NO if other and not found["allowed"] else 0
