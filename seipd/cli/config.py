"""``seipd config``: the settings in force and where each came from."""

from __future__ import annotations

import click

from seipd.cli.options import network_options, settings_of, wants_json
from seipd.cli.output import print_json, print_table


@click.group()
def config() -> None:
    """Settings and where each came from."""


@config.command()
@network_options
@click.pass_context
def show(context: click.Context, /, **flags: object) -> None:
    """Print each setting, its value and its source."""
    settings = settings_of(context, **flags)
    rows = [
        (name, str(getattr(settings, name)), source) for name, source in settings.sources.items()
    ]
    if wants_json(context):
        print_json({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        print_table(("setting", "value", "from"), rows)
