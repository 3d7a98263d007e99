"""Shell completion: prints what a shell should source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

if TYPE_CHECKING:
    from collections.abc import Callable

SHELLS = ("bash", "zsh", "fish")


def completion_command(program: str, group: Callable[[], click.Group]) -> click.Command:
    """Return the ``completion`` command of a program."""

    @click.command(name="completion")
    @click.argument("shell", type=click.Choice(SHELLS))
    def completion(shell: str) -> None:
        """Print the completion script of a shell; source it in the shell's own start file."""
        kind = get_completion_class(shell)
        if kind is None:
            raise click.UsageError(f"no completion for {shell}")
        variable = f"_{program.upper()}_COMPLETE"
        click.echo(kind(group(), {}, program, variable).source())

    return completion


def _seipd_group() -> click.Group:
    from seipd.cli.main import seipd_group

    return seipd_group()


seipd = completion_command("seipd", _seipd_group)
