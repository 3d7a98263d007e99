"""``seipd acl``: who may do what where; which endpoint may reach which, and by which rule."""

from __future__ import annotations

import re

import click

from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask

CAPABILITIES = ("read", "operate", "admin")
_TRAFFIC = re.compile(r"(?:tcp|udp|icmp|any)(?:/[0-9-]+)?\Z")
_SHOWN_DIGITS = 8


@click.group()
def acl() -> None:
    """Who may do what where; which endpoint may reach which, and why."""


@acl.command()
@click.argument("one")
@click.argument("other")
@click.argument("third")
@click.pass_context
def check(context: click.Context, *, one: str, other: str, third: str) -> int:
    """Say yes or no, and by which rule or grant; exit 1 where it is no.

    \b
    seipd acl check SOURCE TARGET TRAFFIC
        may an endpoint reach another: tcp/22, udp, icmp, any
    seipd acl check KEY ACTION NODE
        may a key read, operate or admin there
    """  # noqa: D301 - click reads the character
    settings = settings_of(context)
    if _TRAFFIC.match(third):
        body = {"source": one, "target": other, "traffic": third}
        answer = ask(settings, "POST", "/api/acl/reach", body)
    elif other in CAPABILITIES:
        body = {"key": one, "action": other, "node": third}
        answer = ask(settings, "POST", "/api/acl/check", body)
    else:
        raise click.UsageError(f"{third} is no traffic (tcp/22), and {other} is no action (read)")
    if wants_json(context):
        print_json(answer)
    else:
        click.echo(answer["reason"])
        if not answer.get("kept", True):
            click.echo("warning: this server keeps no rules now — seipd status says why", err=True)
    return 0 if answer["allowed"] else NO


@acl.command(name="ls")
@click.pass_context
def list_rules(context: click.Context) -> None:
    """List the rules between endpoints."""
    rows = ask(settings_of(context), "GET", "/api/acl/rules")
    if wants_json(context):
        print_json(rows)
        return
    columns = ("effect", "source", "target", "traffic")
    lines = [
        (
            row["rule"][:_SHOWN_DIGITS],
            *(row[one] for one in columns),
            "" if row["counts"] else "an end is gone",
        )
        for row in rows
    ]
    print_table(("rule", *columns, "note"), lines)


@acl.command()
@click.argument("source")
@click.argument("target")
@click.argument("traffic")
@click.pass_context
def allow(context: click.Context, *, source: str, target: str, traffic: str) -> None:
    """Let SOURCE reach TARGET with TRAFFIC: tcp/22, udp/8000-8100, tcp, icmp or any.

    Both are an endpoint (NAME, NAME.CUSTOMER, its address), a customer, or everybody.
    """
    _say(context, "allow", source, target, traffic)


@acl.command()
@click.argument("source")
@click.argument("target")
@click.argument("traffic")
@click.pass_context
def deny(context: click.Context, *, source: str, target: str, traffic: str) -> None:
    """Refuse TRAFFIC from SOURCE to TARGET, running connections too; see allow."""
    _say(context, "deny", source, target, traffic)


@acl.command()
@click.argument("rule")
@click.pass_context
def rm(context: click.Context, *, rule: str) -> None:
    """Take a rule away, by the first digits of its id."""
    answer = ask(settings_of(context), "POST", "/api/acl/remove", {"rule": rule})
    if wants_json(context):
        print_json(answer)
    else:
        click.echo(f"rule {answer['rule'][:_SHOWN_DIGITS]} is gone")


def _say(context: click.Context, effect: str, source: str, target: str, traffic: str) -> None:
    body = {"source": source, "target": target, "traffic": traffic}
    answer = ask(settings_of(context), "POST", f"/api/acl/{effect}", body)
    if wants_json(context):
        print_json(answer)
    else:
        print_facts([(one, answer[one]) for one in ("rule", "source", "target", "traffic")])
