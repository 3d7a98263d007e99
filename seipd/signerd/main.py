"""``seipd-signer``: the only process that ever holds a root or domain private key."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from seipd.cli.group import run_group
from seipd.cli.output import print_json


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def signer() -> None:
    """Hold root and domain keys, and sign with them."""


_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/seipd-signer"),
    show_default=True,
)
_UNLOCK = click.option(
    "--unlock-file", type=click.Path(path_type=Path), default=None, help="[<state>.unlock]"
)
_SAME_USER = click.option(
    "--allow-insecure-same-user", is_flag=True, help="run as root: for trials only"
)


@signer.command()
@_STATE
@click.option("--socket", type=click.Path(path_type=Path), default=None)
@_UNLOCK
@click.option("--group", default=None, help="the group that may use the socket")
@_SAME_USER
def run(
    *,
    state: Path,
    socket: Path | None,
    unlock_file: Path | None,
    group: str | None,
    allow_insecure_same_user: bool,
) -> int:
    """Serve on a unix socket."""
    from seipd.daemon.sdnotify import notify
    from seipd.signerd import app
    from services.runtime.logs import configure_logging

    configure_logging("info", "text")
    app.harden()
    app.require_own_user(allow_same_user=allow_insecure_same_user)
    held = app.SignerState(state, unlock_file or _unlock_of(state))
    notify("READY=1")
    try:
        return asyncio.run(app.run_signer(held, socket or state / "run" / "signer.sock", group))
    finally:
        held.close()


@signer.command()
@_STATE
@_UNLOCK
@click.option("--scope", default="platform", show_default=True)
@click.option("--key-id", default="root-1", show_default=True)
@click.option("--purpose", "purposes", multiple=True, required=True, help="seipd/<what>/v1")
@_SAME_USER
def keygen(
    *,
    state: Path,
    unlock_file: Path | None,
    scope: str,
    key_id: str,
    purposes: tuple[str, ...],
    allow_insecure_same_user: bool,
) -> None:
    """Make a key in this process, unless it is there; print its public half."""
    from seipd.signerd import app

    app.harden()
    app.require_own_user(allow_same_user=allow_insecure_same_user)
    held = app.SignerState(state, unlock_file or _unlock_of(state))
    try:
        print_json(held.keygen(scope, key_id, purposes).value())
    finally:
        held.close()


def _unlock_of(state: Path) -> Path:
    return state.with_name(f"{state.name}.unlock")


def main() -> None:
    """Run ``seipd-signer``."""
    sys.exit(run_group(signer, "seipd-signer"))
