"""``seip cert``: certificates that browsers accept, for this endpoint's own name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from seipd.cli.output import print_facts, print_json, progress, utc


@click.group()
def cert() -> None:
    """Certificates for this endpoint's own name."""


@cert.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="another one, with a new key, even if it is not due")
@click.option("--wait", default=180, show_default=True, metavar="SECONDS", help="for the CA")
@click.pass_context
def issue(context: click.Context, *, name: str, force: bool, wait: int) -> None:
    """Get a certificate for NAME, as laptop.acme.ep.mesh.example.org.

    The key is made here and never leaves. While the agent runs it renews the certificate by itself
    when two thirds of its life are over; until then this does nothing.
    """
    from seipd.agent.certificate import bundle_of, issue_certificate
    from seipd.agent.state import AgentState

    state = AgentState(Path(context.find_root().obj["state"]))
    with progress("waiting for the CA"):
        found = asyncio.run(issue_certificate(state, name, wait_s=wait, force=force))
    shown = {
        "name": found.name,
        "file": bundle_of(state, name),
        "not_after_ms": found.leaf.not_after_ms,
        "issuer": found.leaf.issuer,
    }
    if context.find_root().obj["json"]:
        print_json(shown)
    else:
        print_facts(
            [
                ("name", found.name),
                ("file", shown["file"]),
                ("expires", utc(found.leaf.not_after_ms)),
                ("issuer", found.leaf.issuer),
            ]
        )
