"""How a check of ``seipd-verify`` ends: good with what was found, or not good with one reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_GOOD = 1

_DEFAULT_MEND = "do not rely on it; fetch it again from its source"


def judge(what: str, check: Callable[[], dict[str, Any]], *, as_json: bool) -> None:
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
    say(f"INVALID {what}: {reason}", mend or _DEFAULT_MEND)
    raise click.exceptions.Exit(NOT_GOOD)


def _print_json(value: dict[str, Any]) -> None:
    from services.kernel import canonical

    click.echo(canonical.encode(value))


def say(what: str, mend: str) -> None:
    """Print one line for people."""
    line = f"error: {what} — {mend}".replace("\n", " ")
    click.echo(line, err=True)
