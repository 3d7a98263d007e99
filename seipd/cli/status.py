"""``status``, ``peers``, ``servers``, ``doctor``: what is, as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table
from seipd.client.local import ask

if TYPE_CHECKING:
    from typing import Any

_CALM = ("alive", None)


@click.command()
@click.pass_context
def status(context: click.Context) -> int:
    """Show what is up; exit 1 where something is not."""
    found = ask(settings_of(context), "GET", "/api/status")
    if wants_json(context):
        print_json(found)
    else:
        wireguard = found["wireguard"]
        print_facts(
            [
                ("mesh", found["mesh_id"]),
                ("domain", found["domain"]),
                ("server", f"{found['server_id']} ({found['region']})"),
                ("healthy", "yes" if found["healthy"] else "no"),
                ("tunnel address", found["tunnel_address"]),
                ("backbone address", found["backbone_address"]),
                ("slices", ", ".join(found["slices"])),
                (
                    "wireguard",
                    (
                        f"{wireguard['interface']} ({wireguard['backend']}), "
                        f"udp {wireguard['port']}, {wireguard['peers']} peers, "
                        f"MTU {wireguard['mtu']}"
                    ),
                ),
                ("records", found["records"]),
                ("state hash", found["state_hash"]),
                ("root", f"generation {found['root']['generation']}"),
            ]
        )
        click.echo()
        print_table(
            ("service", "state", "detail"),
            [(one["name"], one["state"], one["detail"]) for one in found["services"]],
        )
    return 0 if found["healthy"] else NO


@click.command()
@click.pass_context
def peers(context: click.Context) -> None:
    """List the WireGuard peers of this server."""
    found = ask(settings_of(context), "GET", "/api/peers")["peers"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("name", "endpoint", "region", "state", "lag", "latency")
    print_table(
        (*columns, "allowed IPs", "handshake", "received", "sent"),
        [
            (
                one["name"],
                one["endpoint"],
                one["region"],
                one["state"],
                one["lag_records"],
                _ms(one["latency_ms"]),
                ", ".join(one["allowed_ips"]),
                _ago(one["last_handshake_seconds"]),
                one["rx_bytes"],
                one["tx_bytes"],
            )
            for one in found
        ],
    )
    _print_doubts([(one["name"], one["state"], one["why"], one["through"]) for one in found])


@click.command()
@click.pass_context
def servers(context: click.Context) -> None:
    """List the servers known by gossip."""
    found = ask(settings_of(context), "GET", "/api/servers/known")["servers"]
    if wants_json(context):
        print_json(found)
        return
    columns = ("server_id", "region", "state", "address", "backbone_address", "ns", "lag_records")
    names = ("server", "region", "state", "address", "backbone", "ns", "lag", "latency")
    print_table(
        (*names, "cpu", "endpoints", "release"),
        [
            [
                *(one[column] for column in columns),
                _ms(one["latency_ms"]),
                *_load(one["load"]),
                _release(one["release"]),
            ]
            for one in found
        ],
    )
    _print_doubts([(one["server_id"], one["state"], one["why"], one["through"]) for one in found])


@click.command()
@click.pass_context
def doctor(context: click.Context) -> int:
    """Find what is wrong and say how to mend it; exit 1 where something is."""
    settings = settings_of(context)
    from seipd.cli.offline_doctor import examine_offline

    findings, nat = examine_offline(settings), None
    if findings is None:
        found = ask(settings, "GET", "/api/doctor")
        findings, nat = found["findings"], found["nat"]
    if wants_json(context):
        print_json({"findings": findings, "nat": nat})
    elif not findings:
        click.echo("nothing is wrong")
    for one in () if wants_json(context) else findings:
        click.echo(f"{one['level']}: {one['what']} — {one['mend']}")
    if nat is not None and not wants_json(context):
        seen = f", seen as {nat['seen_as']}" if nat["seen_as"] else ""
        click.echo(f"NAT: {nat['kind']}{seen}")
    return NO if findings else 0


def _load(load: dict[str, Any] | None) -> tuple[str | None, int | None]:
    return (f"{load['cpu_percent']} %", load["endpoints"]) if load else (None, None)


def _print_doubts(servers: list[tuple[str, str | None, str | None, str | None]]) -> None:
    """Say below a table why a server is not held alive, and through whom one is reached."""
    lines = [f"{name} is {state}: {why}" for name, state, why, _ in servers if state not in _CALM]
    lines += [f"{name} is reached through {through}" for name, _, _, through in servers if through]
    if lines:
        click.echo()
    for line in lines:
        click.echo(line)


def _ms(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else f"{milliseconds} ms"


def _ago(seconds: int | None) -> str:
    return "never" if seconds is None else f"{seconds} s ago"


def _release(told: dict[str, Any] | None) -> str:
    """Say what a server runs, and why it may not where it may not."""
    if told is None:
        return "-"
    return f"{told['version']} ({told['code']})" if told["code"] else str(told["version"])
