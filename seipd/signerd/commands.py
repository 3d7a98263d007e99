"""Commands that ask the signer that runs: its keys, a rotation, its audit."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from services.kernel.errors import ConflictError, InputError, SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.base.signing.keys_client import GrpcKeys

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])\Z")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _asking(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="one JSON document"),
        click.option("--socket", type=click.Path(path_type=Path), help="[<state>/run/signer.sock]"),
        click.option(
            "--state",
            type=click.Path(path_type=Path),
            default=Path("/var/lib/seipd-signer"),
            show_default=True,
        ),
    ):
        command = option(command)
    return command


@click.command()
@_asking
@click.option("--scope", default="", help="of this scope alone")
def keys(*, state: Path, socket: Path | None, as_json: bool, scope: str) -> None:
    """List the keys of the signer that runs."""
    found = asyncio.run(_client(state, socket).keys(scope))
    values = [msgspec.to_builtins(one) for one in found]
    if as_json:
        _print_json(values)
        return
    for value in values:
        print_key(value, as_json=False)


@click.command()
@_asking
@click.option("--scope", default="platform", show_default=True)
@click.option("--from", "old_key_id", required=True, metavar="KEY-ID")
@click.option("--to", "new_key_id", required=True, metavar="KEY-ID")
@click.option("--window", default="1d", show_default=True, help="how long both of them sign")
def rotate(
    *,
    state: Path,
    socket: Path | None,
    as_json: bool,
    scope: str,
    old_key_id: str,
    new_key_id: str,
    window: str,
) -> None:
    """Make the successor of a key; both sign until the window closes.

    The root of a mesh is rotated by ``seipd root rotate``, which asks for this and tells the mesh.
    """
    from services.runtime.clock import SystemClock

    found = _DURATION.match(window)
    if found is None:
        raise InputError(f"not a duration: {window[:20]}", mend="write it as 90s, 15m, 2h or 7d")
    now_ms = SystemClock().now_ms()
    rotation = asyncio.run(
        _client(state, socket).rotate(
            scope=scope,
            old_key_id=old_key_id,
            new_key_id=new_key_id,
            opens_at_ms=now_ms,
            closes_at_ms=now_ms + int(found[1]) * _UNIT_S[found[2]] * 1000,
        )
    )
    if as_json:
        from services.kernel.ids import b64u_encode

        _print_json(
            {
                "scope": scope,
                "old_key_id": old_key_id,
                "new_key_id": new_key_id,
                "opens_at": _time_of(rotation.opens_at_ms),
                "closes_at": _time_of(rotation.closes_at_ms),
                "new_public_key": b64u_encode(rotation.new_public_key),
            }
        )
    else:
        closes = _time_of(rotation.closes_at_ms)
        click.echo(f"{new_key_id} follows {old_key_id}, which signs until {closes}")


@click.command()
@_asking
@click.option("--month", default="", metavar="YYYY-MM", help="[the newest]")
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--count", type=click.IntRange(1, 1000), default=100, show_default=True)
def audit(
    *, state: Path, socket: Path | None, as_json: bool, month: str, first: int, count: int
) -> None:
    """Read what the signer was asked, and how each call ended."""
    page = asyncio.run(_client(state, socket).audit(month=month, first=first, count=count))
    if as_json:
        _print_json(msgspec.to_builtins(page))
        return
    for at, entry in enumerate(page.entries, first):
        words = [str(entry.get(name, "")) or "-" for name in _COLUMNS]
        click.echo(f"{at} {_time_of(entry['at_ms'])} {' '.join(words)}")
    click.echo(f"{page.size} entries in {page.month}, signed by {page.vkey}", err=True)


_COLUMNS = ("call", "caller", "scope", "key_id", "outcome", "reason")


def made_by_running(
    state: Path, scope: str, key_id: str, purposes: list[str], *, otherwise: ConflictError
) -> Mapping[str, Any]:
    """Have the signer that holds the lock make a key, where it answers.

    Raises:
        ConflictError: ``otherwise``: it is no signer that runs; ``key_exists``.
        SeipdError: it refuses.
    """
    try:
        made = asyncio.run(_client(state, None).make(scope=scope, key_id=key_id, purposes=purposes))
    except SeipdError as error:
        raise (otherwise if error.code == "signer_unavailable" else error) from None
    value: dict[str, Any] = msgspec.to_builtins(made)
    return value


def print_key(value: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the row of a key."""
    if as_json:
        _print_json(dict(value))
    else:
        click.echo(f"{value['scope']} {value['key_id']} {value['state']} {value['public_key']}")


def _client(state: Path, socket: Path | None) -> GrpcKeys:
    from services.base.signing.keys_client import GrpcKeys

    return GrpcKeys(str(socket or state / "run" / "signer.sock"))


def _time_of(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_json(value: object) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
