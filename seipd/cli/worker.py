"""``seipd worker``: the jobs of one kind, worked before one's eyes.

The daemon alone opens the queue, and works what is due by itself. So this asks it: ``--once`` to
work the next job that waits now, without to tell of each attempt that ends.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import click

from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_json, printable, progress, utc
from seipd.client.local import ask

if TYPE_CHECKING:
    from seipd.config.model import Settings

POLL_S: Final = 0.5
MAX_PAGE: Final = 500

Job = dict[str, Any]


@click.command()
@click.argument("kind")
@click.option("--once", is_flag=True, help="let the next one that waits run now, and wait for it")
@click.pass_context
def worker(context: click.Context, *, kind: str, once: bool) -> int:
    """Have jobs of KIND, as acme.order/1, worked, and tell what came of each.

    The daemon works them when they are due; this tells of each attempt until it is interrupted.
    """
    settings = settings_of(context)
    if once:
        return _work_one(context, settings, kind)
    told = {job["id"]: _mark(job) for job in _jobs(settings, kind)}
    while True:
        time.sleep(POLL_S)
        told = _tell_news(context, _jobs(settings, kind), told)


def _work_one(context: click.Context, settings: Settings, kind: str) -> int:
    """Let the next job run; exit 1 where its attempt failed."""
    waiting = _jobs(settings, kind, state="ready")
    if not waiting:
        click.echo(f"no job of {printable(kind)} waits", err=True)
        return 0
    soonest = min(waiting, key=lambda job: (job["run_at_ms"], job["id"]))
    begun = job = ask(settings, "POST", f"/api/jobs/{soonest['id']}/retry")
    with progress(f"working {job['id']}"):
        while job["state"] == "running" or _mark(job) == _mark(begun):
            time.sleep(POLL_S)
            job = ask(settings, "GET", f"/api/jobs/{job['id']}")
    _tell(context, job)
    return 0 if job["state"] == "done" else NO


def _tell_news(
    context: click.Context, jobs: list[Job], told: dict[str, tuple[Any, ...]]
) -> dict[str, tuple[Any, ...]]:
    """Tell of the attempts that ended since; return what is told by now."""
    for job in sorted(jobs, key=lambda job: (job["changed_ms"], job["id"])):
        has_ended = job["state"] in ("done", "dead") or job["error_code"] is not None
        if job["state"] != "running" and has_ended and told.get(job["id"]) != _mark(job):
            _tell(context, job)
    return {job["id"]: _mark(job) for job in jobs}


def _mark(job: Job) -> tuple[Any, ...]:
    """Return what differs after each attempt."""
    return job["state"], job["attempt"], job["changed_ms"]


def _jobs(settings: Settings, kind: str, **more: str) -> list[Job]:
    words = urlencode({"kind": kind, "limit": MAX_PAGE, **more})
    found: list[Job] = ask(settings, "GET", f"/api/jobs?{words}")["jobs"]
    return found


def _tell(context: click.Context, job: Job) -> None:
    if wants_json(context):
        print_json(job)
        return
    words = [utc(job["changed_ms"]), job["id"], job["key"] or "-", job["state"]]
    if job["state"] != "done":
        words.append(f"attempt {job['attempt']}/{job['max_attempts']}")
    if job["state"] == "ready":
        words.append(f"again at {utc(job['run_at_ms'])}")
    if job["state"] != "done" and job["error"]:
        words.append(job["error"])
    click.echo(printable("  ".join(words)))
