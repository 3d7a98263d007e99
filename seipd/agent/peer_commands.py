"""``seip peers`` and ``seip ping``: the other endpoints, and by which path they are reached."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seipd.agent.peerlines import COLUMNS, path_line, peer_rows, with_paths
from seipd.agent.trustlines import REFUSED, WAITING
from seipd.cli.output import print_json, print_table, progress
from services.kernel.errors import ForbiddenError, NotFoundError, SeipdError

if TYPE_CHECKING:
    from seipd.agent.state import AgentState

# A status has to come while the server is dead, too; from another continent it takes half of this.
PEERS_WITHIN_S = 6.0
BETTER_WITHIN_S = 4.0
SETTLED_AFTER_S = 1.5
POLL_S = 0.1


@click.command()
@click.pass_context
def peers(context: click.Context) -> None:
    """List the other endpoints of this customer, and by which path they are reached."""
    from seipd.agent.background import read_status

    state = _state(context)
    listed = with_paths(asyncio.run(fetch_peers(context, state)), read_status(state))
    if context.find_root().obj["json"]:
        print_json(listed)
    else:
        print_peers(listed)


@click.command()
@click.argument("name")
@click.option(
    "-c", "count", type=click.IntRange(1, 100_000), default=3, show_default=True, help="how many"
)
@click.pass_context
def ping(context: click.Context, *, name: str, count: int) -> int:
    """Ping another endpoint by NAME or address, and say by which path.

    Packets go over the server at first: a moment is waited for a better path.
    """
    state = _state(context)
    listed = asyncio.run(fetch_peers(context, state, beside=name))
    found = next((one for one in listed if name in (one["name"], one["address"])), None)
    if found is None:
        raise NotFoundError(f"no endpoint is called {name[:63]}", mend="seip peers lists them")
    if found["trust"] == REFUSED:
        raise ForbiddenError(
            f"what the server says of {found['name']} is false: {found['why']}",
            code="proof_false",
            mend="it was reported; tell whoever runs the mesh",
        )
    if found["trust"] == WAITING:
        click.echo(f"not proved yet: {found['why']}", err=True)
    with progress("looking for a better path than over the server"):
        before = _settled(state, found)
    click.echo(path_line(before), err=True)
    sys.stdout.flush()
    command = ["ping", "-c", str(count), found["address"]]
    status = subprocess.run(command, check=False).returncode  # noqa: S603 (an address that we checked)
    after = _now(state, found)
    if after["path"] != before["path"]:
        click.echo(path_line(after), err=True)
    return status


def print_peers(listed: list[dict[str, Any]]) -> None:
    """Print the table of peers."""
    print_table(COLUMNS, peer_rows(listed))


async def fetch_peers(
    context: click.Context, state: AgentState, *, beside: str = ""
) -> list[dict[str, Any]]:
    """Return the peers that the server lists, judged by proofs; report what is false of them.

    Args:
        context: of the command.
        state: of this endpoint.
        beside: where this is an address that is not listed, who holds it, too.

    Raises:
        SeipdError: the server can't be asked.
    """
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
        path = f"/api/mesh/peers/{mesh['node_id']}"
        listed = peers_of(await api.call("GET", path))
        if _is_unlisted_address(beside, listed):
            listed += peers_of(await api.call("POST", path, {"addresses": [beside]}))
        judged = await prover.peers(api, listed)
    for subject, verdict in lies.items():
        click.echo(f"refused: {subject}: {verdict.why}", err=True)
        await report_lie(mesh, keys, subject=subject, verdict=verdict, now_ms=clock.now_ms())
    return judged


def _is_unlisted_address(text: str, listed: list[dict[str, Any]]) -> bool:
    try:
        address = str(IPv4Address(text))
    except ValueError:
        return False
    return all(one["address"] != address for one in listed)


def peers_if_up(context: click.Context, state: AgentState) -> tuple[list[dict[str, Any]], str]:
    """Return the peers and nothing; or none of them and why, as where the server is away."""

    async def soon() -> list[dict[str, Any]]:
        async with asyncio.timeout(PEERS_WITHIN_S):
            return await fetch_peers(context, state)

    try:
        return asyncio.run(soon()), ""
    except TimeoutError:
        return [], f"the server did not list them in {PEERS_WITHIN_S:.0f} s"
    except SeipdError as error:
        return [], str(error)


def _settled(state: AgentState, peer: dict[str, Any]) -> dict[str, Any]:
    """Have packets go to a peer, and return its path once nothing better is looked for."""
    now = _now(state, peer)
    if now["phase"] == "":
        return now
    nudge = ["ping", "-q", "-c", "1", "-W", "1", peer["address"]]
    subprocess.run(nudge, check=False, capture_output=True)  # noqa: S603 (an address that we checked)
    began_s = time.monotonic()
    while (waited_s := time.monotonic() - began_s) < BETTER_WITHIN_S:
        now = _now(state, peer)
        if now["path"] == "direct" or (now["phase"] == "idle" and waited_s > SETTLED_AFTER_S):
            break
        time.sleep(POLL_S)
    return now


def _now(state: AgentState, peer: dict[str, Any]) -> dict[str, Any]:
    from seipd.agent.background import read_status

    return with_paths([peer], read_status(state))[0]


def _signers(context: click.Context, state: AgentState) -> int:
    """Return how many servers have to sign: as said here, else as the running agent was told."""
    from seipd.agent.background import read_status

    wanted: int | None = context.find_root().obj["signers"]
    running = read_status(state) if wanted is None else None
    return int(running["trust"]["wanted"]) if running is not None else wanted or 0


def _state(context: click.Context) -> AgentState:
    from seipd.agent.state import AgentState

    return AgentState(Path(context.find_root().obj["state"]))
