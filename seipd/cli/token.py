"""A token on the command line, or where nobody else on the machine sees it."""

from __future__ import annotations

import sys
from typing import Final

import click
from typing_extensions import override

MAX_TOKEN_CHARS: Final = 8192


class TokenType(click.ParamType[str]):
    """A token as it is, or ``-``: the first line of standard input, asked for at a terminal.

    A command's arguments are seen by everybody on the machine and stay in the shell's history.
    """

    name = "token"

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != "-":
            return value
        if sys.stdin.isatty():
            return str(click.prompt("Token", hide_input=True, err=True)).strip()
        line = sys.stdin.readline(MAX_TOKEN_CHARS + 1).strip()
        if not line or len(line) > MAX_TOKEN_CHARS:
            self.fail("standard input holds no token", param, ctx)
        return line


TOKEN: Final = TokenType()
