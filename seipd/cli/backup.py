"""``seipd backup`` and ``seipd restore``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, progress

if TYPE_CHECKING:
    from seipd.config.model import Settings

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=FILE)
@click.pass_context
def backup(context: click.Context, *, file: Path) -> None:
    """Write a backup of this server to FILE; the daemon may run.

    The unlock secret and the root key are not in it: keep them elsewhere.
    """
    from seipd.daemon.backup import write_backup
    from services.runtime.clock import SystemClock

    settings = settings_of(context)
    with progress("reading the ledger"):
        made = write_backup(
            settings.data_root, file, clock=SystemClock(), settings_file=_settings_file(context)
        )
    _tell(context, made, ["mesh_id", "root_fingerprint", "server_id", "file", "bytes"])
    if not wants_json(context):
        click.echo(f"keep beside it, elsewhere: {_unlock(settings)}", err=True)


@click.command()
@click.argument("file", type=FILE)
@click.pass_context
def restore(context: click.Context, *, file: Path) -> None:
    """Make an empty data root what the backup in FILE says."""
    from seipd.daemon.restore import restore_backup

    settings = settings_of(context)
    with progress("checking and unpacking the backup"):
        made = restore_backup(file, settings.data_root)
    missing = [str(one) for one in [_unlock(settings)] if not one.exists()]
    _tell(context, {**made, "missing": missing}, ["mesh_id", "root_fingerprint", "server_id"])
    if wants_json(context):
        return
    for one in missing:
        click.echo(f"put {one} back before the start", err=True)
    click.echo("restored; start it with: sudo seipd run, and never the original again", err=True)


def _tell(context: click.Context, made: dict[str, Any], names: list[str]) -> None:
    if wants_json(context):
        print_json(made)
        return
    facts: list[tuple[str, object]] = [(name.replace("_", " "), made[name]) for name in names]
    facts += [(path, f"{size} entries") for path, size in made["feeds"].items()]
    print_facts(facts)


def _settings_file(context: click.Context) -> Path:
    from seipd.config.model import DEFAULT_CONFIG

    shared = context.find_root().obj or {}
    return Path(shared.get("config") or os.environ.get("SEIPD_CONFIG") or DEFAULT_CONFIG)


def _unlock(settings: Settings) -> Path:
    from seipd.config.paths import Paths
    from seipd.daemon.opening import unlock_path

    return unlock_path(settings, Paths(settings.data_root))
