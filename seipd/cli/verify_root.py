"""``seipd-verify chain`` and ``certificate``: root keys and what they signed, with no network."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seipd.cli.judging import judge
from seipd.cli.output import utc

if TYPE_CHECKING:
    from services.base.ledger.rootwalk import RootWalk
    from services.kernel.records import Record

MAX_FILE_BYTES = 64 << 20


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--root", "fingerprint", metavar="FINGERPRINT", required=True, help="one you know")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def chain(file: Path, fingerprint: str, *, as_json: bool) -> None:
    """Verify a root key chain: identity/root_chain.json, or what seipd root chain --json prints."""

    def check() -> dict[str, Any]:
        walk = _followed(file)
        known = _known(walk, fingerprint)
        newest = walk.chain.newest
        return {
            "mesh_id": walk.mesh_id,
            "root": known.generation,
            "generation": newest.generation,
            "fingerprint": newest.fingerprint,
            "expires_at": utc(newest.expires_ms),
        }

    judge("chain", check, as_json=as_json)


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--chain",
    "chain_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The root key chain.",
)
@click.option("--root", "fingerprint", metavar="FINGERPRINT", help="A root key that you know.")
@click.option("--at", "at_text", metavar="TIME", help="UTC, 2026-01-31T12:00:00Z  [now]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def certificate(
    file: Path, chain_file: Path, fingerprint: str | None, at_text: str | None, *, as_json: bool
) -> None:
    """Verify a server's certificate: the roster change that names it, by the root of its time."""
    at_ms = _parse_time(at_text)

    def check() -> dict[str, Any]:
        from services.kernel.errors import InputError

        walk = _followed(chain_file)
        if fingerprint is not None:
            _known(walk, fingerprint)
        records = _records(file)
        if len(records) != 1:
            raise InputError("it holds more than one record, or none", code="root_malformed")
        change = walk.check(records[0], now_ms=at_ms)
        signer = walk.chain.of_key(records[0].actor)
        return {
            "mesh_id": walk.mesh_id,
            "number": change.number,
            "generation": signer.generation if signer else None,
            "servers": [one.server_id for one in change.servers],
        }

    judge("certificate", check, as_json=as_json)


def _followed(file: Path) -> RootWalk:
    """Follow a chain; of a whole roster, every change."""
    from services.base.ledger.rootwalk import follow_chain

    return follow_chain(_records(file))


def _known(walk: RootWalk, fingerprint: str) -> Any:  # noqa: ANN401 (a Generation)
    from services.base.ledger.rootchain import RootChainError

    known = walk.chain.of_fingerprint(fingerprint.strip().lower())
    if known is None:
        raise RootChainError("no key of it has that fingerprint", code="root_other")
    return known


def _records(file: Path) -> list[Record]:
    """Read a record, a list of them, or of what ``seipd root chain --json`` prints."""
    from services.base.ledger.rootchain import RootChainError
    from services.kernel import canonical
    from services.kernel.errors import SeipdError
    from services.kernel.records import record_from_value

    if file.stat().st_size > MAX_FILE_BYTES:
        raise RootChainError("the file is too large", code="root_malformed")
    try:
        value: Any = canonical.decode(file.read_bytes())
        if isinstance(value, dict):
            value = value.get("chain", value.get("charter", [value]))
        if not isinstance(value, list):
            raise RootChainError("it is no list of records", code="root_malformed")
        return [record_from_value(one) for held in value for one in _held(held)]
    except RootChainError:
        raise
    except SeipdError as error:
        raise RootChainError(str(error), code="root_malformed") from error


def _held(row: object) -> list[object]:
    if not isinstance(row, dict) or "record" not in row:
        return [row]
    named = row.get("named_recovery_key")
    return [row["record"]] if named is None else [named, row["record"]]


def _parse_time(text: str | None) -> int:
    if text is None:
        from services.runtime.clock import SystemClock

        return SystemClock().now_ms()
    try:
        when = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007 (Z is UTC)
    except ValueError as error:
        raise click.BadParameter("write it as 2026-01-31T12:00:00Z", param_hint="'--at'") from error
    return int(when.replace(tzinfo=datetime.UTC).timestamp() * 1000)
