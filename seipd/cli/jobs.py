"""``seipd jobs``: durable work, what of it failed and why."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table, utc
from seipd.client.local import ask

STATES = ("ready", "running", "done", "dead")


@click.group()
def jobs() -> None:
    """Work that has to happen sooner or later, and survives restarts."""


@jobs.command(name="ls")
@click.option("--state", type=click.Choice(STATES), default=None)
@click.option("--kind", default=None, help="jobs of one kind, as acme.order/1")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True)
@click.pass_context
def list_jobs(context: click.Context, *, state: str | None, kind: str | None, limit: int) -> None:
    """List jobs, the newest first."""
    _list(context, state=state, kind=kind, limit=limit)


@jobs.command()
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True)
@click.pass_context
def dlq(context: click.Context, *, limit: int) -> None:
    """List dead letters: jobs that failed for the last time, or that nobody here knows."""
    _list(context, state="dead", kind=None, limit=limit)


@jobs.command()
@click.argument("job", metavar="JOB")
@click.pass_context
def show(context: click.Context, *, job: str) -> None:
    """Show one job."""
    _print(context, ask(settings_of(context), "GET", f"/api/jobs/{job}"))


@jobs.command()
@click.argument("job", metavar="JOB")
@click.pass_context
def retry(context: click.Context, *, job: str) -> None:
    """Let a dead letter begin anew, or a waiting job run at once."""
    _print(context, ask(settings_of(context), "POST", f"/api/jobs/{job}/retry"))


def _list(context: click.Context, *, state: str | None, kind: str | None, limit: int) -> None:
    words = {
        "limit": limit,
        **({"state": state} if state else {}),
        **({"kind": kind} if kind else {}),
    }
    found = ask(settings_of(context), "GET", f"/api/jobs?{urlencode(words)}")
    if wants_json(context):
        print_json(found)
        return
    print_table(
        ("job", "kind", "for", "state", "attempt", "next", "error"),
        [
            (
                one["id"],
                one["kind"],
                one["key"],
                one["state"],
                f"{one['attempt']}/{one['max_attempts']}",
                utc(one["run_at_ms"]) if one["state"] == "ready" else None,
                one["error"],
            )
            for one in found["jobs"]
        ],
    )
    if found["cursor"]:
        click.echo("there are more: --limit shows up to 500", err=True)


def _print(context: click.Context, job: dict[str, Any]) -> None:
    if wants_json(context):
        print_json(job)
        return
    times = ("run_at_ms", "created_ms", "changed_ms")
    print_facts(
        [
            (name.removesuffix("_ms").replace("_", " "), utc(value) if name in times else value)
            for name, value in job.items()
        ]
    )
