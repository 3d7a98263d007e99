"""A click group that imports a command when it is called, and options that stand anywhere."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTERRUPTED = 130

Commands = dict[str, tuple[str, str]]
"""Command name to (``module:attribute``, help in one line)."""


class LazyGroup(click.Group):
    """Knows its commands by name and one line each; imports only the one that is called."""

    def __init__(self, *, commands: Commands, shared: Sequence[click.Option], **attrs: Any) -> None:  # noqa: ANN401 (click's)
        super().__init__(params=list(shared), **attrs)
        self._table = commands
        self._shared_flags = _flags(shared)

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self._table)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command and return it."""
        place = self._table.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place[0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let the shared options stand after the command's name, too."""
        return super().parse_args(ctx, _hoist(args, self._shared_flags))


def _flags(options: Sequence[click.Option]) -> Mapping[str, bool]:
    return {name: not option.is_flag for option in options for name in option.opts}


def _hoist(args: list[str], flags: Mapping[str, bool]) -> list[str]:
    """Move the shared options in front; what follows ``--`` stays where it is."""
    front: list[str] = []
    rest: list[str] = []
    at = 0
    while at < len(args):
        arg = args[at]
        name, equals, _ = arg.partition("=")
        if arg == "--":
            rest += args[at:]
            break
        if name in flags:
            takes = 2 if flags[name] and not equals else 1
            front += args[at : at + takes]
            at += takes
        else:
            rest.append(arg)
            at += 1
    return front + rest


def run_group(group: click.Group, program: str) -> int:
    """Run a program; return its exit status, whatever happens."""
    from seipd.cli.exits import DONE, NO, USAGE
    from services.kernel.errors import SeipdError

    try:
        result = group.main(prog_name=program, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        # Who names no command is shown which there are, as many lines as that takes.
        with contextlib.suppress(OSError):
            click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" — {context.command_path} --help tells" if context else ""
        _say(f"{error.format_message()}{hint}")
        return USAGE
    except SeipdError as error:
        from seipd.cli.output import fail

        return fail(error)
    except BrokenPipeError:
        # The reader went away: click answers 1 then, and so do we.
        _give_up_output()
        return NO
    except Exception as error:  # noqa: BLE001 (nobody is shown a traceback)
        return _failed(error)
    return result if isinstance(result, int) else DONE


def _failed(error: Exception) -> int:
    """Tell of a failure that nothing below has words for."""
    import logging

    from seipd.cli.exits import NO

    logging.getLogger(__name__).debug("the command failed", exc_info=error)
    if isinstance(error, OSError):
        _give_up_output()
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror} — make room or give the right to it, then try again")
    else:
        _say(f"{type(error).__name__}: {error} — this is a fault of the program: report it")
    return NO


def _give_up_output() -> None:
    """Drop what could not be written: tried again at exit, it would make the status 120."""
    sys.stdout = None


def _say(text: str) -> None:
    line = "".join(char if char.isprintable() else " " for char in text)
    with contextlib.suppress(OSError):
        click.echo(f"error: {line}", err=True)
