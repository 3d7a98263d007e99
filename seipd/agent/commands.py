"""The commands of ``seip``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seipd.agent.options import (
    interface_of,
    interface_option,
    mtu_option,
    refuse_other_options,
    tunnel_of,
    tunnel_options,
)
from seipd.agent.routes.options import routes_lines, routing_options, said_of
from seipd.agent.trustlines import REVOKED, trust_lines
from seipd.cli.completion import completion_command
from seipd.cli.exits import NO
from seipd.cli.output import print_facts, print_json, progress
from seipd.cli.token import TOKEN

if TYPE_CHECKING:
    from seipd.agent.state import AgentState


def _state(context: click.Context) -> AgentState:
    from seipd.agent.state import AgentState

    return AgentState(Path(context.find_root().obj["state"]))


def _json(context: click.Context) -> bool:
    return bool(context.find_root().obj["json"])


@click.command()
@click.argument("token", type=TOKEN)
@click.option(
    "--name",
    default=None,
    metavar="HOST",
    help="hostname in the mesh [the token's, else this machine's]",
)
@click.option(
    "--domain",
    default=None,
    envvar="SEIP_DOMAIN",
    metavar="DOMAIN",
    help="the mesh's: find its servers by DNS and go to the best",
)
@click.option(
    "--region",
    default=None,
    envvar="SEIP_REGION",
    help="where this machine is: servers near it are looked at first",
)
@click.pass_context
def join(
    context: click.Context, *, token: str, name: str | None, domain: str | None, region: str | None
) -> None:
    """Join a mesh with a TOKEN; - asks for it, or reads it from standard input."""
    from seipd.agent import joining
    from services.kernel.ids import parse_domain, parse_label

    state = _state(context)
    where = {
        "domain": parse_domain(domain) if domain else None,
        "region": parse_label(region) if region else None,
    }
    with progress("joining"):
        joined = asyncio.run(joining.join(state, token, name, **where))
    answer = joined.mesh
    if joined.why:
        click.echo(joined.why, err=True)
    shown = {
        "node_id": answer["node_id"],
        "hostname": answer["hostname"],
        "tunnel_address": answer["tunnel_address"],
        "tunnel_address6": answer["tunnel_address6"],
        "server_id": answer["server"]["server_id"],
    }
    if _json(context):
        print_json(shown)
        return
    print_facts([(key.replace("_", " "), value) for key, value in shown.items()])
    click.echo("joined; bring the tunnel up with: sudo seip up", err=True)


@click.command()
@tunnel_options
@routing_options
@click.pass_context
def up(context: click.Context, /, **wanted: Any) -> None:  # noqa: ANN401 (tunnel_options says)
    """Bring the tunnel up; the agent goes on in the background."""
    from seipd.agent.background import read_status, start_in_background, stop_agent
    from seipd.agent.routes.wishes import remember

    state = _state(context)
    mesh, tunnel = state.mesh(), tunnel_of(context, wanted)
    running = read_status(state)
    if running is not None:
        refuse_other_options(context, tunnel, running)
    wishes = remember(state, said_of(wanted))
    if running is not None and running["routes"]["mode"] != wishes.mode:
        # Who is reached directly is settled when the agent starts.
        stop_agent(state)
    with progress("waiting for the first handshake"):
        running = start_in_background(state, tunnel)
    if _json(context):
        print_json({**running, "tunnel_address": mesh["tunnel_address"]})
    else:
        click.echo(f"up: {mesh['tunnel_address']} on {tunnel.interface} ({running['backend']})")
        if running["dns"] is not None and running["dns"]["state"] == "failed":
            click.echo(f"names of the mesh are not found here: {running['dns']['why']}", err=True)
        if wishes.exit_node:
            told = "nothing goes out until there is a path to it; seip status tells"
            click.echo(f"the exit node is {wishes.exit_node}: {told}", err=True)


@click.command()
@tunnel_options
@routing_options
@click.pass_context
def run(context: click.Context, /, **wanted: Any) -> int:  # noqa: ANN401 (tunnel_options says)
    """Run the agent in the foreground."""
    from services.runtime.loading import loading_for_good

    with loading_for_good():
        from seipd.agent.routes.wishes import remember
        from seipd.agent.run import run_agent

    state, tunnel = _state(context), tunnel_of(context, wanted)
    state.mesh()
    remember(state, said_of(wanted))
    return asyncio.run(run_agent(state, tunnel))


@click.command()
@interface_option
@click.pass_context
def down(context: click.Context, *, interface: str | None) -> None:
    """Take the tunnel down."""
    from seipd.agent.background import remove_tunnel, stop_agent
    from seipd.agent.hostdns.ways import restore_file

    state = _state(context)
    keys = state.keys()
    stopped = stop_agent(state)
    removed = asyncio.run(remove_tunnel(state, interface_of(state, interface), keys))
    restore_file(state.folder)
    if _json(context):
        print_json({"was_up": stopped or removed})
    else:
        click.echo("down" if stopped or removed else "it was not up")


@click.command()
@click.pass_context
def status(context: click.Context) -> int:
    """Show how the tunnel does; exit 1 where it is not connected."""
    from seipd.agent.background import TOLD_S, is_connected, read_status
    from seipd.agent.diagnosis import outside_line
    from seipd.agent.hostdns.keeping import names_line
    from seipd.agent.mtu.deciding import mtu_line
    from seipd.agent.peer_commands import peers_if_up, print_peers
    from seipd.agent.peerlines import known_peers, paths_facts, paths_line
    from seipd.agent.rules_line import rules_line

    state = _state(context)
    mesh, running = state.mesh(), read_status(state)
    listed, why_none = peers_if_up(context, state) if running else ([], "the agent does not run")
    age_s = running["last_handshake_seconds"] if running else None
    shown = {
        "node_id": mesh["node_id"],
        "hostname": mesh["hostname"],
        "tunnel_address": mesh["tunnel_address"],
        "tunnel_address6": mesh["tunnel_address6"],
        "server": {
            "id": mesh["server"]["server_id"],
            "endpoint": mesh["server"]["endpoint"],
        },
        "moved_because": (running or {}).get("moved_because", ""),
        "running": running is not None,
        "connected": is_connected(running),
        "last_handshake_seconds": age_s,
        "silent_seconds": running.get("silent_seconds") if running else None,
        "told_seconds": running.get("told_seconds") if running else None,
        "rx_bytes": running["rx_bytes"] if running else 0,
        "tx_bytes": running["tx_bytes"] if running else 0,
        "dns": running["dns"] if running else None,
        "trust": running["trust"] if running else None,
        "routes": running["routes"] if running else None,
        "policy": running["policy"] if running else None,
        "outside": running["outside"] if running else None,
        "mtu": running["mtu"] if running else None,
        "paths": paths_facts(running),
        "peers": known_peers(listed, running) if running else [],
        "peers_why": why_none,
    }
    if _json(context):
        print_json(shown)
    else:
        apart = ("server", "dns", "trust", "routes", "policy", "outside", "mtu", "paths", "peers")
        shown.pop("peers_why")
        told_s = shown.pop("told_seconds")
        server, dns, trust, routes, policy, outside, mtu, paths, peers_shown = map(shown.pop, apart)
        facts = [(key.replace("_", " "), value) for key, value in shown.items()]
        facts += [("told", f"{told_s} s ago; seip doctor")] if (told_s or 0) >= TOLD_S else []
        facts.append(("server", f"{server['id']} at {server['endpoint']}"))
        facts.append(("names", names_line(dns)))
        facts += [("paths", paths_line(paths))] if paths else []
        facts += [("mtu", mtu_line(mtu))] if mtu else []
        facts += [("router", outside_line(outside))] if outside else []
        facts += routes_lines(running) if running and routes else []
        facts += [("rules", rules_line(policy))] if policy else []
        facts += [("peers", f"not listed: {why_none}")] if running and why_none else []
        print_facts([*facts, *(trust_lines(trust) if trust else ())])
        if peers_shown:
            click.echo()
            print_peers(peers_shown)
    return 0 if shown["connected"] else NO


@click.command()
@click.option("--qr", is_flag=True, help="draw it, for a phone's camera")
@mtu_option
@click.pass_context
def config(context: click.Context, *, qr: bool, mtu: int | None) -> None:
    """Print a plain wg-quick file with which a stock WireGuard client does the same.

    The subnets of others are in it where the agent runs, which knows of them.
    """
    from seipd.agent.background import read_status
    from seipd.agent.proving import certified_server
    from seipd.agent.tunnel import wg_quick_file

    state, running = _state(context), read_status(_state(context))
    certified_server(state.mesh())
    subnets = [one["prefix"] for one in running["routes"]["subnets"]] if running else []
    text = wg_quick_file(state.mesh(), state.keys(), subnets, mtu=mtu or 0)
    if qr:
        import segno

        segno.make(text, error="l").terminal(compact=True)
    elif _json(context):
        print_json({"config": text})
    else:
        click.echo(text, nl=False)


@click.command()
@interface_option
@click.pass_context
def leave(context: click.Context, *, interface: str | None) -> None:
    """Leave the mesh; the address is free again. The tunnel must be up, to tell the server."""
    from seipd.agent import joining
    from seipd.agent.background import read_status, remove_tunnel, stop_agent
    from seipd.agent.hostdns.ways import restore_file

    state = _state(context)
    keys, running = state.keys(), read_status(state)
    is_revoked = running is not None and running["trust"]["server"]["code"] == REVOKED
    tells = not is_revoked and not _is_damaged(state)
    with progress("leaving"):
        if tells:
            asyncio.run(joining.leave(state))
        stop_agent(state)
        asyncio.run(remove_tunnel(state, interface_of(state, interface), keys))
        restore_file(state.folder)
        state.forget()
    if _json(context):
        print_json({"left": True})
    else:
        click.echo("left the mesh")


def _is_damaged(state: AgentState) -> bool:
    """Say whether what the join answered is of no use any more: nobody can be told then."""
    from services.kernel.errors import CorruptError

    try:
        state.mesh()
    except CorruptError as error:
        click.echo(f"the mesh is not told, and keeps the address: {error}", err=True)
        return True
    return False


def _seip_group() -> click.Group:
    from seipd.agent.main import seip_group

    return seip_group()


completion = completion_command("seip", _seip_group)
