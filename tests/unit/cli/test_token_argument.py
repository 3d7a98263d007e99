"""A token is taken from the command line, or from standard input where nobody else sees it."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from seipd.cli.token import TOKEN


@click.command()
@click.argument("token", type=TOKEN)
def shown(token: str) -> None:
    click.echo(f"<{token}>")


@pytest.mark.parametrize(
    ("word", "given"),
    [("seip1_x", ""), ("-", "seip1_x\n"), ("-", "  seip1_x \r\nanother line\n"), ("-", "seip1_x")],
)
def test_it_is_taken_from_where_it_is(word, given):
    assert CliRunner().invoke(shown, [word], input=given).output == "<seip1_x>\n"


@pytest.mark.parametrize("given", ["", "\n", "x" * 9000])
def test_none_there_is_said(given):
    done = CliRunner().invoke(shown, ["-"], input=given)
    assert done.exit_code == 2
    assert "standard input holds no token" in done.output
