"""``seipd-signer``: the only process that ever holds a root or domain private key."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from seipd.signerd.commands import audit, keys, made_by_running, print_key, rotate
from seipd.signerd.options import provider_options, serving_options
from services.kernel.errors import (
    ConfigError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SeipdError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from seipd.signerd.state import SignerState

EXIT_USAGE = 2
_EXIT_STATUS: tuple[tuple[type[SeipdError], int], ...] = (
    (ConfigError, EXIT_USAGE),
    (InputError, EXIT_USAGE),
    (ForbiddenError, 4),
    (NotFoundError, 5),
    (ConflictError, 6),
    (UnavailableError, 7),
)


class _RunByDefault(click.Group):
    """Without the name of a command, ``run`` is meant."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in {"-h", "--help"}):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault, context_settings={"help_option_names": ["-h", "--help"]})
def signer() -> None:
    """Hold root and domain keys, and sign with them; ``run`` unless told otherwise."""


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        provider_options,
        click.option(
            "--allow-insecure-same-user", is_flag=True, help="run as root: for trials only"
        ),
        click.option(
            "--unlock-file", type=click.Path(path_type=Path), default=None, help="[<state>.unlock]"
        ),
        click.option(
            "--state",
            type=click.Path(path_type=Path),
            default=Path("/var/lib/seipd-signer"),
            show_default=True,
        ),
    ):
        command = option(command)
    return command


def _named(command: Callable[..., Any]) -> Callable[..., Any]:
    scope = click.option("--scope", default="platform", show_default=True)
    key_id = click.option("--key-id", default="root-1", show_default=True)
    as_json = click.option("--json", "as_json", is_flag=True, help="print the whole row")
    return scope(key_id(as_json(command)))


@signer.command()
@_common
@serving_options
@click.option("--socket", type=click.Path(path_type=Path), help="[<state>/run/signer.sock]")
@click.option("--group", default=None, help="the group that may use the socket, too")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
@click.option("--end-with", type=int, default=None, metavar="PID", help="end when this one does")
def run(
    *,
    state: Path,
    unlock_file: Path | None,
    allow_insecure_same_user: bool,
    socket: Path | None,
    group: str | None,
    log_level: str,
    log_format: str,
    end_with: int | None,
    listen: str | None,
    svid: str | None,
    svid_key: str | None,
    bundle: str | None,
    allowed: tuple[str, ...],
    profile: str,
    **provider: str | None,
) -> None:
    """Serve on a unix socket, and for other machines if told so, until told to stop."""
    from seipd.signerd.app import run_signer
    from seipd.signerd.lifecycle import end_with as end_with_process
    from seipd.signerd.serving import Serving, check_serving
    from services.runtime.logs import configure_logging

    configure_logging(log_level, log_format)
    if end_with is not None:
        end_with_process(end_with)
    listening = check_serving(
        Serving(
            profile=profile,
            provider=provider.get("provider") or "software",
            group=group is not None,
            same_user=allow_insecure_same_user,
            listen=listen,
            files=(svid, svid_key, bundle),
            allowed=allowed,
        )
    )
    with _opened(state, unlock_file, provider, allow_same_user=allow_insecure_same_user) as held:
        where = socket or state / "run" / "signer.sock"
        asyncio.run(run_signer(held, folder=state, socket=where, group=group, listening=listening))


@signer.command()
@_common
@_named
@click.option("--purpose", "purposes", multiple=True, required=True, help="seipd/<what>/v1")
def keygen(
    *,
    state: Path,
    unlock_file: Path | None,
    allow_insecure_same_user: bool,
    scope: str,
    key_id: str,
    purposes: tuple[str, ...],
    as_json: bool,
    **provider: str | None,
) -> None:
    """Make a key in this process, unless it is there; print its public half."""
    from services.runtime.clock import SystemClock

    try:
        with _opened(
            state, unlock_file, provider, allow_same_user=allow_insecure_same_user
        ) as held:
            value: Mapping[str, Any] = held.keygen(
                scope, key_id, purposes, now_ms=SystemClock().now_ms()
            ).value()
    except ConflictError as error:
        if error.code != "locked":
            raise
        value = made_by_running(state, scope, key_id, list(purposes), otherwise=error)
    print_key(value, as_json=as_json)


@signer.command()
@_common
@_named
def retire(
    *,
    state: Path,
    unlock_file: Path | None,
    allow_insecure_same_user: bool,
    scope: str,
    key_id: str,
    as_json: bool,
    **provider: str | None,
) -> None:
    """Let a key sign no more; there is no way back."""
    from services.runtime.clock import SystemClock

    with _opened(state, unlock_file, provider, allow_same_user=allow_insecure_same_user) as held:
        value = held.retire(scope, key_id, now_ms=SystemClock().now_ms()).value()
    print_key(value, as_json=as_json)


@contextmanager
def _opened(
    folder: Path,
    unlock_file: Path | None,
    provider: dict[str, str | None],
    *,
    allow_same_user: bool,
) -> Iterator[SignerState]:
    from seipd.signerd.choosing import ProviderSettings, provider_of
    from seipd.signerd.lifecycle import harden, require_own_user
    from seipd.signerd.state import SignerState

    require_own_user(allow_same_user=allow_same_user)
    harden()
    chosen = provider_of(
        ProviderSettings(**provider),
        folder=folder,
        unlock_file=unlock_file or folder.with_name(f"{folder.name}.unlock"),
    )
    held = SignerState(folder, chosen)
    held.open()
    try:
        yield held
    finally:
        held.close()


signer.add_command(keys)
signer.add_command(rotate)
signer.add_command(audit)


def main() -> None:
    """Run ``seipd-signer``."""
    try:
        signer.main(prog_name="seipd-signer")
    except SeipdError as error:
        line = f"error: {error} — {error.mend}" if error.mend else f"error: {error}"
        click.echo("".join(char if char.isprintable() else " " for char in line), err=True)
        sys.exit(_exit_status_of(error))


def _exit_status_of(error: SeipdError) -> int:
    for kind, status in _EXIT_STATUS:
        if isinstance(error, kind):
            return status
    return 1
