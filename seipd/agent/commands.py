"""The commands of ``seip``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seipd.agent.options import tunnel_of, tunnel_options
from seipd.agent.routes.options import routes_lines, routing_options, said_of
from seipd.agent.trustlines import REFUSED, REVOKED, WAITING, trust_lines
from seipd.cli.completion import completion_command
from seipd.cli.exits import NO
from seipd.cli.output import print_facts, print_json, print_table, progress
from services.kernel.errors import ForbiddenError, NotFoundError, SeipdError

if TYPE_CHECKING:
    from seipd.agent.state import AgentState

# A status has to come while the server is dead, too.
PEERS_WITHIN_S = 3.0


def _state(context: click.Context) -> AgentState:
    from seipd.agent.state import AgentState

    return AgentState(Path(context.find_root().obj["state"]))


def _json(context: click.Context) -> bool:
    return bool(context.find_root().obj["json"])


def _signers(context: click.Context, state: AgentState) -> int:
    """Return how many servers have to sign: as said here, else as the running agent was told."""
    from seipd.agent.background import read_status

    wanted: int | None = context.find_root().obj["signers"]
    running = read_status(state) if wanted is None else None
    return int(running["trust"]["wanted"]) if running is not None else wanted or 0


@click.command()
@click.argument("token")
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
    """Join a mesh with a TOKEN."""
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
    wishes, running = remember(state, said_of(wanted)), read_status(state)
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


@click.command()
@tunnel_options
@routing_options
@click.pass_context
def run(context: click.Context, /, **wanted: Any) -> int:  # noqa: ANN401 (tunnel_options says)
    """Run the agent in the foreground."""
    from seipd.agent.routes.wishes import remember
    from seipd.agent.run import run_agent

    state, tunnel = _state(context), tunnel_of(context, wanted)
    state.mesh()
    remember(state, said_of(wanted))
    return asyncio.run(run_agent(state, tunnel))


@click.command()
@click.option("--wireguard-interface", "interface", default="seip1", show_default=True)
@click.pass_context
def down(context: click.Context, *, interface: str) -> None:
    """Take the tunnel down."""
    from seipd.agent.background import remove_tunnel, stop_agent
    from seipd.agent.hostdns.ways import restore_file

    state = _state(context)
    state.mesh()
    stopped = stop_agent(state)
    removed = asyncio.run(remove_tunnel(state, interface, state.keys()))
    restore_file(state.folder)
    if _json(context):
        print_json({"was_up": stopped or removed})
    else:
        click.echo("down" if stopped or removed else "it was not up")


@click.command()
@click.pass_context
def status(context: click.Context) -> int:
    """Show how the tunnel does; exit 1 where it is not connected."""
    from seipd.agent.background import STALE_HANDSHAKE_S, read_status
    from seipd.agent.hostdns.keeping import names_line

    state = _state(context)
    mesh, running = state.mesh(), read_status(state)
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
        "connected": age_s is not None and age_s < STALE_HANDSHAKE_S,
        "last_handshake_seconds": age_s,
        "rx_bytes": running["rx_bytes"] if running else 0,
        "tx_bytes": running["tx_bytes"] if running else 0,
        "dns": running["dns"] if running else None,
        "trust": running["trust"] if running else None,
        "routes": running["routes"] if running else None,
        "peers": _peers_if_up(context, state) if running else [],
    }
    if _json(context):
        print_json(shown)
    else:
        server, dns, trust, routes, peers_shown = (
            shown.pop(name) for name in ("server", "dns", "trust", "routes", "peers")
        )
        facts = [(key.replace("_", " "), value) for key, value in shown.items()]
        facts.append(("server", f"{server['id']} at {server['endpoint']}"))
        facts.append(("names", names_line(dns)))
        facts += routes_lines(routes) if routes else []
        print_facts([*facts, *(trust_lines(trust) if trust else ())])
        if peers_shown:
            click.echo()
            _print_peers(peers_shown)
    return 0 if shown["connected"] else NO


@click.command()
@click.pass_context
def peers(context: click.Context) -> None:
    """List the other endpoints of this customer."""
    listed = asyncio.run(_fetch_peers(context, _state(context)))
    if _json(context):
        print_json(listed)
    else:
        _print_peers(listed)


@click.command()
@click.argument("name")
@click.option("-c", "count", default=3, show_default=True, help="how many")
@click.pass_context
def ping(context: click.Context, *, name: str, count: int) -> int:
    """Ping another endpoint by NAME or address, and say by which path."""
    listed = asyncio.run(_fetch_peers(context, _state(context)))
    found = next((one for one in listed if name in (one["name"], one["address"])), None)
    if found is None:
        raise NotFoundError(f"no endpoint is called {name[:63]}", mend="seip peers lists them")
    if found["trust"] == REFUSED:
        raise ForbiddenError(
            f"what the server says of {found['name']} is false: {found['why']}",
            code="proof_false",
            mend="it was reported; tell whoever runs the mesh",
        )
    click.echo(f"{found['name']} is {found['address']}, reached through the server", err=True)
    if found["trust"] == WAITING:
        click.echo(f"not proved yet: {found['why']}", err=True)
    sys.stdout.flush()
    command = ["ping", "-c", str(count), found["address"]]
    return subprocess.run(command, check=False).returncode  # noqa: S603 (an address that we checked)


@click.command()
@click.option("--qr", is_flag=True, help="draw it, for a phone's camera")
@click.pass_context
def config(context: click.Context, *, qr: bool) -> None:
    """Print a plain wg-quick file with which a stock WireGuard client does the same.

    The subnets of others are in it where the agent runs, which knows of them.
    """
    from seipd.agent.background import read_status
    from seipd.agent.proving import certified_server
    from seipd.agent.tunnel import wg_quick_file

    state, running = _state(context), read_status(_state(context))
    certified_server(state.mesh())
    subnets = [one["prefix"] for one in running["routes"]["subnets"]] if running else []
    text = wg_quick_file(state.mesh(), state.keys(), subnets)
    if qr:
        import segno

        segno.make(text, error="l").terminal(compact=True)
    elif _json(context):
        print_json({"config": text})
    else:
        click.echo(text, nl=False)


@click.command()
@click.option("--wireguard-interface", "interface", default="seip1", show_default=True)
@click.pass_context
def leave(context: click.Context, *, interface: str) -> None:
    """Leave the mesh; the address is free again. The tunnel must be up, to tell the server."""
    from seipd.agent import joining
    from seipd.agent.background import read_status, remove_tunnel, stop_agent
    from seipd.agent.hostdns.ways import restore_file

    state = _state(context)
    keys, running = state.keys(), read_status(state)
    is_revoked = running is not None and running["trust"]["server"]["code"] == REVOKED
    with progress("leaving"):
        if not is_revoked:
            asyncio.run(joining.leave(state))
        stop_agent(state)
        asyncio.run(remove_tunnel(state, interface, keys))
        restore_file(state.folder)
        state.forget()
    if _json(context):
        print_json({"left": True})
    else:
        click.echo("left the mesh")


async def _fetch_peers(context: click.Context, state: AgentState) -> list[dict[str, Any]]:
    """Return the peers that the server lists, judged by proofs; report what is false of them."""
    from seipd.agent.answer import peers_of
    from seipd.agent.private_api import PrivateApi
    from seipd.agent.proving import Prover, Verdict
    from seipd.agent.reporting import report_lie
    from services.runtime.clock import SystemClock

    mesh, keys, clock = state.mesh(), state.keys(), SystemClock()
    lies: dict[str, Verdict] = {}
    prover = Prover(
        state=state,
        keys=keys,
        signer_count=_signers(context, state),
        clock=clock,
        on_lie=lies.__setitem__,
    )
    async with PrivateApi(mesh, keys) as api:
        listed = peers_of(await api.call("GET", f"/api/mesh/peers/{mesh['node_id']}"))
        judged = await prover.peers(api, listed)
    for subject, verdict in lies.items():
        click.echo(f"refused: {subject}: {verdict.why}", err=True)
        await report_lie(mesh, keys, subject=subject, verdict=verdict, now_ms=clock.now_ms())
    return [{**one, "latency_ms": None} for one in judged]


def _peers_if_up(context: click.Context, state: AgentState) -> list[dict[str, Any]]:
    async def soon() -> list[dict[str, Any]]:
        async with asyncio.timeout(PEERS_WITHIN_S):
            return await _fetch_peers(context, state)

    try:
        return asyncio.run(soon())
    except (SeipdError, TimeoutError):
        return []


def _print_peers(listed: list[dict[str, Any]]) -> None:
    columns = ("name", "address", "address6", "path", "trust")
    print_table(columns, [[one[column] for column in columns] for one in listed])


def _seip_group() -> click.Group:
    from seipd.agent.main import seip_group

    return seip_group()


completion = completion_command("seip", _seip_group)
