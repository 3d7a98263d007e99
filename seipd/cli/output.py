"""What a person or a program gets to see: one JSON document, or a table; one line for an error."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from seipd.cli.exits import exit_status_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.kernel.errors import SeipdError

SPINNER_AFTER_S = 1.0


def print_json(value: Any) -> None:  # noqa: ANN401 (JSON)
    """Print one JSON document on standard output."""
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns; plain text where nobody watches."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    console = Console(no_color="NO_COLOR" in os.environ, highlight=False)
    if not console.is_terminal:
        console.width = 240
    console.print(table)


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print names and values, aligned."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        click.echo(f"{name:<{width}}  {'-' if value is None else value}")


def print_error(error: SeipdError) -> None:
    """Print the one line of an error on standard error."""
    what = printable(str(error))
    mend = printable(error.mend)
    click.echo(f"error: {what} — {mend}" if mend else f"error: {what}", err=True)


def fail(error: SeipdError) -> int:
    """Print an error and return the exit status that goes with it."""
    print_error(error)
    return exit_status_of(error)


def utc(time_ms: int) -> str:
    """Return a time as people read it, to the second."""
    when = datetime.datetime.fromtimestamp(time_ms / 1000, tz=datetime.UTC)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def printable(text: str) -> str:
    """Return text without control characters: a name can't paint the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Show that something takes its time: after a second, and on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True, no_color="NO_COLOR" in os.environ).status(what)
    timer = threading.Timer(SPINNER_AFTER_S, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
