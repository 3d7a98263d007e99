"""``seipd certs``: the TLS certificates of this server, and those of its endpoints."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from seipd.cli.exits import NO
from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table, progress, utc
from seipd.client.local import ask

if TYPE_CHECKING:
    from seipd.config.model import Settings

POLL_S = 0.5


@click.group()
def certs() -> None:
    """TLS certificates, ordered by ACME."""


@certs.command(name="ls")
@click.pass_context
def list_certificates(context: click.Context) -> None:
    """List certificates, when each is renewed, and what is in the way."""
    found = ask(settings_of(context), "GET", "/api/certs")["certificates"]
    if wants_json(context):
        print_json(found)
        return
    print_table(
        ("name", "state", "expires", "renewal", "issuer", "job", "error"),
        [
            (
                one["name"],
                one["state"],
                _time(one["not_after_ms"]),
                _time(one["renew_at_ms"]),
                one["issuer"],
                one["job"],
                one["error"],
            )
            for one in found
        ],
    )


@certs.command()
@click.argument("name")
@click.option("--wait", default=120, show_default=True, metavar="SECONDS", help="0: don't wait")
@click.pass_context
def issue(context: click.Context, *, name: str, wait: int) -> int:
    """Order a certificate for NAME, a name of this server, and wait for it."""
    return _issue(context, name, wait)


@certs.command()
@click.argument("name")
@click.option("--wait", default=120, show_default=True, metavar="SECONDS", help="0: don't wait")
@click.pass_context
def renew(context: click.Context, *, name: str, wait: int) -> int:
    """Order another certificate for NAME now, due or not; the old one serves until it is there."""
    return _issue(context, name, wait)


def _issue(context: click.Context, name: str, wait_s: int) -> int:
    settings = settings_of(context)
    before = ask(settings, "GET", f"/api/certs/{name}")["fingerprint"]
    found = ask(settings, "POST", "/api/certs/issue", {"name": name})
    with progress("waiting for the CA"):
        found = _wait(settings, name, found, before, wait_s)
    if wants_json(context):
        print_json(found)
    else:
        print_facts(
            [
                ("name", found["name"]),
                ("state", found["state"]),
                ("expires", _time(found["not_after_ms"])),
                ("job", found["job"]),
                ("error", found["error"]),
            ]
        )
    return 0 if wait_s == 0 or found["fingerprint"] not in (None, before) else NO


def _wait(
    settings: Settings, name: str, found: dict[str, Any], before: str | None, wait_s: int
) -> dict[str, Any]:
    deadline_s = time.monotonic() + wait_s
    while found["fingerprint"] in (None, before) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
        found = ask(settings, "GET", f"/api/certs/{name}")
        if "ordered" not in found["state"]:
            break
    return found


def _time(time_ms: int | None) -> str | None:
    return utc(time_ms) if time_ms is not None else None
