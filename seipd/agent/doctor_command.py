"""``seip doctor``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from seipd.cli.exits import NO
from seipd.cli.output import print_json


@click.command()
@click.pass_context
def doctor(context: click.Context) -> int:
    """Find what is wrong and say how to mend it; exit 1 where something is."""
    from seipd.agent.diagnosis import is_bad
    from seipd.agent.doctor import examine_endpoint
    from seipd.agent.state import AgentState

    shared = context.find_root().obj
    findings = asyncio.run(examine_endpoint(AgentState(Path(shared["state"]))))
    if shared["json"]:
        print_json({"findings": [one.value() for one in findings]})
    elif not is_bad(findings):
        click.echo("nothing is wrong")
    for one in () if shared["json"] else findings:
        click.echo(f"{one.level}: {one.what} — {one.mend}")
    return NO if is_bad(findings) else 0
