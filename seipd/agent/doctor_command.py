"""``seip doctor``."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from seipd.cli.exits import NO
from seipd.cli.output import print_json, progress
from services.kernel.errors import NotFoundError

if TYPE_CHECKING:
    from seipd.agent.diagnosis import Finding
    from seipd.agent.state import AgentState

PINGS: Final = ("-q", "-c", "3", "-i", "0.5", "-W", "1")


@click.command()
@click.argument("name", required=False)
@click.pass_context
def doctor(context: click.Context, *, name: str | None) -> int:
    """Find what is wrong and say how to mend it; exit 1 where something is.

    With a NAME, or an address, also by which path that endpoint is reached, and why by that one.
    """
    from seipd.agent.diagnosis import is_bad
    from seipd.agent.doctor import examine_endpoint
    from seipd.agent.state import AgentState

    shared = context.find_root().obj
    state = AgentState(Path(shared["state"]))
    with progress("trying the way to the server"):
        findings = asyncio.run(examine_endpoint(state))
    if name is not None and not is_bad(findings):
        findings += _examine_peer(context, state, name)
    if shared["json"]:
        print_json({"findings": [one.value() for one in findings]})
    elif not is_bad(findings):
        click.echo("nothing is wrong")
    for one in () if shared["json"] else findings:
        click.echo(f"{one.level}: {one.what} — {one.mend}" if one.mend else one.what)
    return NO if is_bad(findings) else 0


def _examine_peer(context: click.Context, state: AgentState, name: str) -> list[Finding]:
    from seipd.agent.background import read_status
    from seipd.agent.diagnosis import PeerFacts, peer_findings
    from seipd.agent.peer_commands import fetch_peers
    from seipd.agent.peerlines import with_paths

    listed = asyncio.run(fetch_peers(context, state))
    found = next((one for one in listed if name in (one["name"], one["address"])), None)
    if found is None:
        raise NotFoundError(f"no endpoint is called {name[:63]}", mend="seip peers lists them")
    command = ["ping", *PINGS, found["address"]]
    with progress(f"asking {found['name']}"):
        done = subprocess.run(command, check=False, capture_output=True)  # noqa: S603 (an address that we checked)
    shown = with_paths([found], read_status(state))[0]
    facts = PeerFacts(
        name=found["name"],
        trust=found["trust"],
        why_trust=found["why"],
        path=shown["path"],
        why_path=shown["path_why"],
        answers=done.returncode == 0,
    )
    return peer_findings(facts)
