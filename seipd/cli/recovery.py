"""``seipd root recover``: a lost root is followed by a new one."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json
from seipd.client.local import ask
from services.kernel.errors import InputError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from seipd.config.model import Settings

ASK_EVERY_S = 2.0
MAX_FILE_BYTES = 4096


@click.command()
@click.option("--approve", metavar="SERVER", help="release this server's share to SERVER")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="the offline recovery file to use"
)
@click.option(
    "--wait", "wait_s", type=click.IntRange(0, 86_400), default=600, show_default=True,
    metavar="SECONDS", help="for the shares of others",
)  # fmt: skip
@click.option(
    "--again", is_flag=True, help="though this server released its share to one that never finishes"
)
@click.option("--yes", is_flag=True, help="do not ask")
@click.pass_context
def recover(
    context: click.Context,
    *,
    approve: str | None,
    path: Path | None,
    wait_s: int,
    again: bool,
    yes: bool,
) -> None:
    """Bring the mesh a new root when the old one is lost; run it on the server that shall have it.

    The holders' operators look at the fingerprint that it prints, and run it with --approve.
    """
    settings = settings_of(context)
    if approve is not None and path is not None:
        raise InputError(
            "--approve releases this server's share, --file has a recovery file",
            mend="say one of the two",
        )
    if approve is not None:
        found = _approved(settings, approve, again=again, yes=yes)
    elif path is not None:
        found = _recovered_by_file(settings, path)
    else:
        found = _recovered(settings, wait_s, again=again)
    if wants_json(context):
        print_json(found)
        return
    shown = {name: _text(value) for name, value in found.items()}
    print_facts(list(shown.items()))


def _recovered(settings: Settings, wait_s: int, *, again: bool) -> dict[str, Any]:
    begun = ask(settings, "POST", "/api/root/recovery/begin", {"again": again})
    missing = begun["needed"] - len(begun["released"])
    if missing > 0:
        click.echo(f"new root: {begun['fingerprint']}", err=True)
        click.echo(f"now, on {missing} of the other servers that hold shares:", err=True)
        click.echo(f"    seipd root recover --approve {begun['server_id']}", err=True)
    until_s = time.monotonic() + wait_s
    while True:
        try:
            found: dict[str, Any] = ask(settings, "POST", "/api/root/recovery/finish")
        except UnavailableError as error:
            if error.code != "too_few_shares" or time.monotonic() >= until_s:
                raise
            time.sleep(ASK_EVERY_S)
        else:
            return found


def _approved(settings: Settings, server: str, *, again: bool, yes: bool) -> dict[str, Any]:
    listed = ask(settings, "GET", "/api/root/recovery")["requests"]
    request = next((one for one in listed if one["server_id"] == server), None)
    if request is None:
        raise NotFoundError(
            f"{server} does not ask for shares",
            code="no_request",
            mend="run seipd root recover there first, and wait until this server heard of it",
        )
    if not yes and not _confirmed(request):
        raise InputError("nothing was released", code="not_confirmed", mend="say --yes to do it")
    body = {"server": server, "fingerprint": request["fingerprint"], "again": again}
    found: dict[str, Any] = ask(settings, "POST", "/api/root/recovery/approve", body)
    return found


def _confirmed(request: dict[str, Any]) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            "a share is released for good, and nobody is here to be asked", mend="say --yes"
        )
    click.echo(f"{request['server_id']} wants to have the root of this mesh.", err=True)
    click.echo(f"New root, generation {request['generation']}: {request['fingerprint']}", err=True)
    click.echo("Ask its operator on another way whether that is right.", err=True)
    return click.confirm("Release this server's share?", err=True)


def _recovered_by_file(settings: Settings, path: Path) -> dict[str, Any]:
    from services.base.signing.recovery_client import GrpcRecovery
    from services.base.signing.recovery_wire import EndorseRequest
    from services.base.storage.files import read_private
    from services.kernel.ids import b64u_encode

    content = read_private(path, MAX_FILE_BYTES)
    claim = ask(settings, "POST", "/api/root/recovery/claim")
    request = EndorseRequest(
        claim=claim["claim"], recovery_key=claim["recovery_key"], file=b64u_encode(content)
    )
    # From here to the signer itself: what the file holds is nothing for the daemon to see.
    reply = asyncio.run(GrpcRecovery(claim["signer"]).endorse(request))
    body = {"claim": claim["claim"], "endorsement": reply.endorsement}
    found: dict[str, Any] = ask(settings, "POST", "/api/root/recovery/endorsed", body)
    return found


def _text(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {said}" for name, said in value.items()) or None
    return ", ".join(value) or None if isinstance(value, list) else value
