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

from seipd.cli.judging import NOT_GOOD, judge, say
from seipd.cli.verify_audit import audit_command
from seipd.cli.verify_root import certificate, chain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.base.ledger.note import NoteVerifier

GOOD = 0
USAGE = 2


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


cli.add_command(chain)
cli.add_command(certificate)
cli.add_command(audit_command(_parse_key))


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

    judge("ledger", check, as_json=as_json)


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

    judge("proof", check, as_json=as_json)


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

    judge("equivocation", check, as_json=as_json)


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

    judge("contradiction", check, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit."""
    status = NOT_GOOD
    try:
        status = cli.main(arguments, prog_name="seipd-verify", standalone_mode=False) or GOOD
    except click.ClickException as error:
        say(error.format_message(), "see seipd-verify --help")
        status = USAGE
    except click.exceptions.Exit as error:
        status = error.exit_code
    except OSError as error:
        with contextlib.suppress(OSError):
            say(f"can't print the answer: {error.strerror}", "run it again")
        status = NOT_GOOD
    except (KeyboardInterrupt, click.Abort):
        say("INVALID: interrupted before all was checked", "run it again")
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


if __name__ == "__main__":
    main()
