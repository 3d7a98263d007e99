"""Wrong words are told as such, with status 2, before any daemon is asked."""

from __future__ import annotations

import sys

import pytest

from seipd.cli.group import run_group
from seipd.cli.main import seipd_group


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("root", "recover", "--approve", "server-1", "--file", "x"), "say one of the two"),
        (("release", "import", "FILE"), "is no manifest"),
        (("attestation", "enroll", "server-1", "FILE"), "not JSON"),
    ],
)
def test_what_can_t_be_meant_is_a_wrong_use(words, said, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("{no JSON")
    given = [str(tmp_path / "file") if word == "FILE" else word for word in words]
    monkeypatch.setattr(sys, "argv", ["seipd", "--data-root", str(tmp_path / "none"), *given])
    assert run_group(seipd_group(), "seipd") == 2
    assert said in capsys.readouterr().err
