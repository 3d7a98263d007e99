"""``seipd-verify``: judges exported ledgers, proofs and accusations with no network and no daemon.

Exit 0 is good, 1 is not good (with the reason in one line), 2 is wrong usage. Only the path that
went through every check ends with 0: whatever else happens, garbage, a missing file, a closed
pipe or a fault in this program, is "not good".
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.base.ledger.note import NoteVerifier

GOOD = 0
NOT_GOOD = 1
USAGE = 2

_DEFAULT_MEND = "do not rely on it; fetch it again from its source"


def _parse_key(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> NoteVerifier | None:
    from services.base.ledger.note import NoteError, parse_vkey

    if value is None:
        return None
    try:
        return parse_vkey(value)
    except NoteError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option("--origin", help="The log's name, where it is not that of the key."),
        click.option(
            "--key",
            "verifier",
            metavar="VKEY",
            required=True,
            callback=_parse_key,
            help="The log's public key.",
        ),
    ):
        command = option(command)
    return command


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Verify ledgers and proofs offline. Exit 0: good, 1: not good, 2: wrong usage."""


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@_common
def ledger(folder: Path, verifier: NoteVerifier, origin: str | None, *, as_json: bool) -> None:
    """Verify a copied log folder: signature, every tile, every entry."""
    from services.base.ledger.fsck import verify_log

    def check() -> dict[str, Any]:
        report = verify_log(folder, verifier, origin or verifier.name)
        return {
            "origin": origin or verifier.name,
            "size": report.size,
            "root_hash": report.root.hex(),
        }

    _judge("ledger", check, as_json=as_json)


@cli.command()
@click.argument("file", metavar="FILE.tlog-proof", type=click.Path(path_type=Path))
@click.option(
    "--entry",
    "entry_file",
    type=click.Path(path_type=Path),
    help="The entry proved, where the proof does not carry it as its extra data.",
)
@_common
def proof(
    file: Path,
    entry_file: Path | None,
    verifier: NoteVerifier,
    origin: str | None,
    *,
    as_json: bool,
) -> None:
    """Verify that an entry is in the log at the place that the proof says."""
    from services.base.ledger.proof import parse_proof, verify_proof
    from services.kernel.errors import InputError

    def check() -> dict[str, Any]:
        from hashlib import sha256

        found = parse_proof(file.read_bytes())
        entry = entry_file.read_bytes() if entry_file else found.extra
        if entry is None:
            raise InputError(
                "the proof does not carry the entry that it proves",
                mend="name the file that holds it with --entry",
            )
        checkpoint = verify_proof(
            found, entry=entry, verifier=verifier, origin=origin or verifier.name
        )
        return {
            "origin": checkpoint.origin,
            "index": found.index,
            "size": checkpoint.size,
            "root_hash": checkpoint.root.hex(),
            "entry_sha256": sha256(entry).hexdigest(),
        }

    _judge("proof", check, as_json=as_json)


@cli.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--key",
    "verifier",
    metavar="VKEY",
    callback=_parse_key,
    help="The public key of the feed that it should be about.",
)
def equivocation(file: Path, verifier: NoteVerifier | None, *, as_json: bool) -> None:
    """Verify that a server signed two checkpoints that can't both be true."""
    from services.base.ledger.equivocation import NoEquivocationError, decode_equivocation

    def check() -> dict[str, Any]:
        found = decode_equivocation(file.read_bytes())
        if verifier is not None and found.verifier != verifier:
            raise NoEquivocationError(
                f"it is about {found.verifier.name}, by another key than that given",
                code="other_origin",
            )
        shown = found.verify()
        return {
            "server_id": shown.server_id,
            "epoch": shown.epoch,
            "size": shown.size,
            "root_hash": shown.root.hex(),
            "other_size": shown.larger_size,
            "other_root_hash": shown.other_root.hex(),
            "vkey": found.verifier.vkey,
        }

    _judge("equivocation", check, as_json=as_json)


@cli.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--mesh", "mesh_id", metavar="ID", help="The mesh that it should be about.")
def state(file: Path, mesh_id: str | None, *, as_json: bool) -> None:
    """Verify that servers signed different states of the same feeds."""
    from services.mesh.facts.contradictions import NoContradictionError, decode_contradiction

    def check() -> dict[str, Any]:
        of_mesh, found = decode_contradiction(file.read_bytes())
        if mesh_id not in (None, of_mesh):
            raise NoContradictionError(f"it is about the mesh {of_mesh}", code="other_mesh")
        told = {root: list(names) for root, names in found.told.items()}
        return {"mesh_id": of_mesh, "time_ms": found.time_ms, "roots": told}

    _judge("contradiction", check, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit."""
    status = NOT_GOOD
    try:
        status = cli.main(arguments, prog_name="seipd-verify", standalone_mode=False) or GOOD
    except click.ClickException as error:
        _say(error.format_message(), "see seipd-verify --help")
        status = USAGE
    except click.exceptions.Exit as error:
        status = error.exit_code
    except OSError as error:
        with contextlib.suppress(OSError):
            _say(f"can't print the answer: {error.strerror}", "run it again")
        status = NOT_GOOD
    except (KeyboardInterrupt, click.Abort):
        _say("INVALID: interrupted before all was checked", "run it again")
        status = NOT_GOOD
    sys.exit(status if _flushed() else NOT_GOOD)


def _flushed() -> bool:
    """Say whether the answer went out; keep the interpreter from complaining at its end."""
    good = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            good = False
    return good


def _judge(what: str, check: Callable[[], dict[str, Any]], *, as_json: bool) -> None:
    """Run one check, print its outcome, and exit with it."""
    try:
        found = check()
    except SeipdError as error:
        _not_good(what, str(error), error, as_json=as_json)
    except OSError as error:
        reason = f"can't read {Path(error.filename or '').name}: {error.strerror}"
        _not_good(what, reason, error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - a fault of ours must never look like "good"
        _not_good(what, f"the check failed ({type(error).__name__})", error, as_json=as_json)
    if as_json:
        _print_json({"good": True, **found})
    else:
        detail = ", ".join(f"{name} {value}" for name, value in found.items())
        click.echo(f"good: {what} {detail}")


def _not_good(what: str, reason: str, error: Exception, *, as_json: bool) -> NoReturn:
    mend = error.mend if isinstance(error, SeipdError) else ""
    if as_json:
        code = error.code if isinstance(error, SeipdError) else "unreadable"
        path = getattr(error, "path", None)
        _print_json({"good": False, "code": code, "reason": reason, "path": path})
    _say(f"INVALID {what}: {reason}", mend or _DEFAULT_MEND)
    raise click.exceptions.Exit(NOT_GOOD)


def _print_json(value: dict[str, Any]) -> None:
    from services.kernel import canonical

    click.echo(canonical.encode(value))


def _say(what: str, mend: str) -> None:
    line = f"error: {what} — {mend}".replace("\n", " ")
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
