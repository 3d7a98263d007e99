"""``seipd relay``: which relays there are, and those that people lend to the mesh."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.cli.relay_run import run
from seipd.client.local import ask


@click.group()
def relay() -> None:
    """Relays: servers of the mesh, and machines that people lend to it."""


relay.add_command(run)


@relay.command(name="ls")
@click.option("--region", default="", metavar="R", help="those of one region alone")
@click.pass_context
def list_relays(context: click.Context, *, region: str) -> None:
    """List the relays with their load and reputation."""
    path = f"/api/relay/list?{urlencode({'region': region})}" if region else "/api/relay/list"
    found = ask(settings_of(context), "GET", path)["relays"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("relay", "region", "address", "owner", "state", "reputation", "load", "latency")
    print_table(columns, [_line(one) for one in found])


@relay.command()
@click.option("--region", default="", metavar="R", help="near a region [this server's]")
@click.option("--from", "start", default="", metavar="NODE", help="near an endpoint")
@click.option("--to", default="", metavar="NODE", help="between there and another endpoint")
@click.option("--limit", type=click.IntRange(1, 32), default=3, help="how many [3]")
@click.pass_context
def nearest(context: click.Context, *, region: str, start: str, to: str, limit: int) -> None:
    """Show the relays that two endpoints would be offered, the best first."""
    given = {"region": region, "from": start, "to": to, "limit": str(limit)}
    query = urlencode({name: value for name, value in given.items() if value})
    found = ask(settings_of(context), "GET", f"/api/relay/nearest?{query}")["relays"]
    if wants_json(context):
        print_json(found)
        return
    print_table(
        ("relay", "region", "address", "reputation", "load", "way", "cost"),
        [
            (
                one["relay_id"],
                one["region"],
                _address(one),
                f"{one['reputation_percent']} %",
                f"{one['load_percent']} %",
                None if one["distance_km"] is None else f"{one['distance_km']} km",
                f"{one['cost_ms']} ms",
            )
            for one in found
        ],
    )


@relay.command()
@click.argument("introduction")
@click.option("--customer", default=None, help="whose relay it is [the mesh's own]")
@click.pass_context
def register(context: click.Context, *, introduction: str, customer: str | None) -> None:
    """Let a relay carry for the mesh: INTRODUCTION is what seipd relay run prints there.

    Again, for a relay that has another address now.
    """
    body = {"introduction": introduction, "customer": customer}
    answer = ask(settings_of(context), "POST", "/api/relay/register", body)
    if wants_json(context):
        print_json(answer)
        return
    facts = [("relay", answer["relay_id"]), ("region", answer["region"])]
    owner = customer or "the mesh itself"
    print_facts(
        [*facts, ("address", _address(answer)), ("owner", owner), ("record", answer["record"])]
    )


@relay.command()
@click.argument("relay_id", metavar="RELAY")
@click.pass_context
def retire(context: click.Context, *, relay_id: str) -> None:
    """Send nobody to a relay any more."""
    answer = ask(settings_of(context), "POST", "/api/relay/retire", {"relay": relay_id})
    if wants_json(context):
        print_json(answer)
        return
    print_facts([("retired", answer["relay_id"]), ("record", answer["record"])])


def _line(one: dict[str, Any]) -> tuple[object, ...]:
    latency_ms = one["latency_ms"]
    return (
        one["server_id"] or one["relay_id"],
        one["region"],
        _address(one),
        one["owner"],
        one["state"],
        f"{one['reputation_percent']} %",
        f"{one['load_percent']} %",
        None if latency_ms is None else f"{latency_ms} ms",
    )


def _address(one: dict[str, Any]) -> str:
    hosts = [one["host"], f"[{one['host6']}]" if one["host6"] else None]
    return ", ".join(f"{host}:{one['port']}" for host in hosts if host)
