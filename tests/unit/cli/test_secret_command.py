"""How a secret gets into ``seipd secret set``: never as an argument, never shown."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from seipd.cli import secret as command
from seipd.cli.group import run_group
from seipd.cli.main import seipd_group
from services.kernel.ids import b64u_decode


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What the daemon is asked to set."""
    bodies: list[dict] = []

    def ask(settings, method, path, body=None):
        bodies.append(body)
        return {"name": body["name"], "version": 1}

    monkeypatch.setattr(command, "ask", ask)
    return bodies


def run(*words: str, given: bytes = b""):
    return CliRunner().invoke(seipd_group(), ["secret", *words], input=given)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (b"token", b"token"),
        (b"token\n", b"token"),
        (b"token\r\n", b"token"),
        (b"two\nlines\n\n", b"two\nlines\n"),
        (b"\x00\xff\n", b"\x00\xff"),
        (b"x" * 8192 + b"\n", b"x" * 8192),
    ],
)
def test_a_value_comes_from_standard_input_or_a_file_without_its_last_line_break(
    asked, tmp_path, given, value
) -> None:
    file = tmp_path / "token"
    file.write_bytes(given)
    for words, stdin in ((("set", "dns"), given), (("set", "dns", "--file", str(file)), b"")):
        done = run(*words, given=stdin)
        assert done.exit_code == 0, done.output
        assert b64u_decode(asked.pop()["value"]) == value
        assert done.output == "dns: version 1 is set\n"


def test_p9_a_value_as_an_argument_is_refused_and_not_repeated(asked, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["seipd", "secret", "set", "dns", "hunter2"])
    assert run_group(seipd_group(), "seipd") == 2
    said = capsys.readouterr()
    assert "hunter2" not in said.out + said.err
    assert "standard input" in said.err
    assert asked == []


def test_what_is_too_long_or_not_there_is_refused(asked, tmp_path, monkeypatch, capsys) -> None:
    long = tmp_path / "long"
    long.write_bytes(b"x" * 8193)
    for path, status in ((long, 2), (tmp_path / "none", 5)):
        monkeypatch.setattr("sys.argv", ["seipd", "secret", "set", "dns", "--file", str(path)])
        assert run_group(seipd_group(), "seipd") == status
    assert asked == []
