"""``seipd attestation``: which hardware vouches for which server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from seipd.cli.options import settings_of, wants_json
from seipd.cli.output import print_facts, print_json, print_table, utc
from seipd.client.local import ask
from services.kernel import canonical
from services.kernel.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    TooLargeError,
    WireError,
)

MAX_FILE_BYTES = 32 * 1024
SHORT_ID_CHARS = 12
MIN_PREFIX_CHARS = 4
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
VALUE = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{96}")


@click.group()
def attestation() -> None:
    """Which hardware vouches for which server."""


@attestation.command()
@click.pass_context
def key(context: click.Context) -> None:
    """Show this machine's own device: what an operator enrols it by (--json for a file)."""
    found = ask(settings_of(context), "GET", "/api/attestation/hardware")
    if wants_json(context):
        print_json(found)
        return
    facts = [(name, found[name]) for name in ("server", "platform", "hardware")]
    print_facts([*facts, *((name, values[0]) for name, values in found["registers"].items())])


@attestation.command()
@click.argument("server", required=False, metavar="[SERVER]")
@click.pass_context
def show(context: click.Context, *, server: str | None) -> None:
    """Show what is enrolled, for SERVER or for all, and who of tier 1 holds what."""
    query = f"?server={quote(server, safe='')}" if server else ""
    found = ask(settings_of(context), "GET", f"/api/attestation/enrolled{query}")["servers"]
    if wants_json(context):
        print_json(found)
    else:
        _print_enrolled(found)


@attestation.command()
@click.argument("server")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--pcr", "pins", multiple=True, metavar="N[=HEX]", help="a TPM's register, likewise")
@click.option(
    "--register",
    "named",
    multiple=True,
    metavar="NAME[=HEX]",
    help="it has to have this value, or that in FILE; one more value with each further time",
)
@click.pass_context
def enroll(
    context: click.Context,
    *,
    server: str,
    file: Path,
    pins: tuple[str, ...],
    named: tuple[str, ...],
) -> None:
    """Say that the hardware in FILE is SERVER's; in force once more than half of tier 1 say so.

    FILE is what ``seipd --json attestation key`` printed on SERVER, or a TPM's attestation key as
    tpm2_readpublic writes it. Which registers count is said by --pcr and --register.
    """
    device = _device_in(file)
    wanted = [*(f"pcr{one}" for one in pins), *named]
    body = {
        "server": server,
        "platform": device["platform"],
        "hardware": device["hardware"],
        "registers": _registers(wanted, device["registers"]),
    }
    if device["server"] not in (None, server):
        raise ConfigError(f"{file} is of {device['server']}, not of {server}")
    _say(context, body)


@attestation.command()
@click.argument("server")
@click.argument("makers", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--pcr", "pins", multiple=True, metavar="N", help="it has to stay as it is now")
@click.pass_context
def certify(context: click.Context, *, server: str, makers: Path, pins: tuple[str, ...]) -> None:
    """Have SERVER's TPM prove its key, then say that it is SERVER's.

    MAKERS has the certificates of the TPM's maker, PEM: its root, and those between. No file is
    carried over: a secret is sealed so that only a TPM of that maker with this very key opens it.
    """
    body = {
        "server": server,
        "makers": _read(makers).decode("ascii", "replace"),
        "registers": [f"pcr{one}" for one in pins],
    }
    found = ask(settings_of(context), "POST", "/api/attestation/certify", body)
    if wants_json(context):
        print_json(found)
    else:
        _print_enrolled([found])


@attestation.command()
@click.argument("server")
@click.argument("entry")
@click.pass_context
def approve(context: click.Context, *, server: str, entry: str) -> None:
    """Say the same of SERVER as others of tier 1 do: ENTRY is its id, or how that begins."""
    path = f"/api/attestation/enrolled?server={quote(server, safe='')}"
    (found,) = ask(settings_of(context), "GET", path)["servers"]
    if len(entry) < MIN_PREFIX_CHARS:
        raise ConfigError(f"{MIN_PREFIX_CHARS} characters of an id at least, please")
    meant = [one for one in found["entries"] if one["id"].startswith(entry)]
    if not meant:
        raise NotFoundError(f"nobody says {entry[:32]} of {server}")
    if len(meant) > 1:
        raise ConflictError(f"several begin with {entry[:32]}", code="ambiguous")
    names = ("platform", "hardware", "registers")
    _say(context, {"server": server, **{name: meant[0][name] for name in names}})


@attestation.command()
@click.argument("server")
@click.pass_context
def withdraw(context: click.Context, *, server: str) -> None:
    """Say that no hardware is SERVER's any more; in force once more than half of tier 1 say so.

    As for a machine that was stolen or sold: where hardware is demanded, SERVER leaves tier 1.
    """
    body = {"server": server}
    found = ask(settings_of(context), "POST", "/api/attestation/withdraw", body)
    if wants_json(context):
        print_json(found)
    else:
        _print_enrolled([found])


@attestation.command()
@click.option("--limit", default=100, show_default=True, help="so many of the newest, at most 1000")
@click.pass_context
def refused(context: click.Context, *, limit: int) -> None:
    """List the quotes that were refused here, oldest first: whose, when, and why."""
    path = f"/api/attestation/refused?limit={limit}"
    found = ask(settings_of(context), "GET", path)["refused"]
    if wants_json(context):
        print_json(found)
        return
    print_table(
        ("at", "server", "code", "what"),
        [[utc(one["at_ms"]), one["server_id"], one["code"], one["what"]] for one in found],
    )


def _say(context: click.Context, body: dict[str, Any]) -> None:
    found = ask(settings_of(context), "POST", "/api/attestation/enroll", body)
    if wants_json(context):
        print_json(found)
    else:
        _print_enrolled([found])


def _print_enrolled(found: list[dict[str, Any]]) -> None:
    columns = ("server", "entry", "platform", "hardware", "registers", "in force", "held by")
    print_table(columns, [row for server in found for row in _rows_of(server)])


def _rows_of(server: dict[str, Any]) -> list[list[Any]]:
    def held(by: list[str]) -> str:
        return f"{len(by)} of {server['electors']}, {server['needed']} needed"

    rows = [
        [
            server["server_id"],
            one["id"][:SHORT_ID_CHARS],
            one["platform"],
            one["hardware"],
            ", ".join(one["registers"]) or None,
            one["in_force"],
            held(one["held_by"]),
        ]
        for one in server["entries"]
    ]
    if by := server["withdrawn_by"]:
        is_over = server["in_force"] is None
        rows.append([server["server_id"], "withdrawn", None, None, None, is_over, held(by)])
    return rows


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"{file} can't be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise TooLargeError(f"{file} is over {MAX_FILE_BYTES} bytes")
    return data


def _device_in(file: Path) -> dict[str, Any]:
    data = _read(file)
    if data.lstrip().startswith(b"{"):
        try:
            found = canonical.decode_object(data)
        except WireError as error:
            raise ConfigError(f"{file}: {error}", code=error.code) from error
        named = {"server": None, "hardware": None, "registers": {}, **found}
        if not isinstance(named.get("platform"), str) or not isinstance(named["registers"], dict):
            raise ConfigError(f"{file} is not what seipd --json attestation key prints")
        return named
    return {
        "server": None,
        "platform": "tpm2",
        "hardware": _ak_name(data),
        "registers": {},
    }


def _ak_name(data: bytes) -> str:
    """Return the name of a key, whose public area may have its size in front (TPM2B_PUBLIC)."""
    from services.base.attestation.tpm_structures import parse_attestation_key

    is_sized = int.from_bytes(data[:2], "big") == len(data) - 2
    return parse_attestation_key(data[2:] if is_sized else data).name.hex()


def _registers(wanted: list[str], known: dict[str, list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in wanted:
        name, equals, value = text.partition("=")
        if not NAME.fullmatch(name) or (equals and not VALUE.fullmatch(value)):
            raise ConfigError(
                f"{text[:80]}: a register is named in lower case, its value is 64 or 96 hex digits"
            )
        values = [value.lower()] if equals else known.get(name)
        if not values or not isinstance(values, list):
            raise ConfigError(
                f"the file has no {name[:32]}", mend="give the value: --register NAME=HEX"
            )
        found[name] = [*found.get(name, []), *values]
    return found
