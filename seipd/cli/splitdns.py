"""``seipd dns split``: the domains that a customer's own name servers know."""

from __future__ import annotations

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask


@click.group()
def split() -> None:
    """Domains of customers: their endpoints are told of them by their own name servers."""


@split.command(name="ls")
@click.pass_context
def list_domains(context: click.Context) -> None:
    """List the customers' domains."""
    rows = ask(settings_of(context), "GET", "/api/dns/split")
    if wants_json(context):
        print_json(rows)
        return
    lines = [(row["customer"], row["domain"], ", ".join(row["upstreams"])) for row in rows]
    print_table(("customer", "domain", "name servers"), lines)


@split.command(name="set")
@click.argument("customer")
@click.argument("domain")
@click.argument("upstreams", metavar="ADDR[:PORT]...", nargs=-1, required=True)
@click.pass_context
def set_domain(
    context: click.Context, *, customer: str, domain: str, upstreams: tuple[str, ...]
) -> None:
    """Send what CUSTOMER's endpoints ask about DOMAIN to these name servers.

    They lie in the tunnel or on the public Internet: a server asks none in its own network.
    """
    _say(context, customer, domain, upstreams)


@split.command()
@click.argument("customer")
@click.argument("domain")
@click.pass_context
def rm(context: click.Context, *, customer: str, domain: str) -> None:
    """Treat DOMAIN as any other again."""
    _say(context, customer, domain, ())


def _say(context: click.Context, customer: str, domain: str, upstreams: tuple[str, ...]) -> None:
    body = {"customer": customer, "domain": domain, "upstreams": list(upstreams)}
    answer = ask(settings_of(context), "POST", "/api/dns/split", body)
    if wants_json(context):
        print_json(answer)
        return
    shown = ", ".join(answer["upstreams"]) or "none of its own"
    facts = [(one, answer[one]) for one in ("customer", "domain", "record")]
    print_facts([*facts, ("name servers", shown)])
