"""A lab's folder: whoever may not pass is found before anything is made."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from seipd.lab import signer
from seipd.lab.folder import make_open
from seipd.lab.signer import require_entry
from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_that_the_signer_may_not_enter_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []

    def works(program: str, *words: str) -> bool:
        asked.append(words)
        return program == "import seipd"

    signer.signer_flags.cache_clear()
    monkeypatch.setattr(signer, "_works_as_signer", works)
    try:
        with pytest.raises(ConfigError, match="who may not enter") as caught:
            require_entry(tmp_path / "not" / "there" / "yet")
    finally:
        signer.signer_flags.cache_clear()
    assert caught.value.code == "folder_closed"
    assert str(tmp_path) in str(caught.value)
    assert asked[-1] == (str(tmp_path),), "of what is not there yet the folder above is tried"
    assert not (tmp_path / "not").exists()


def test_a_signer_of_the_same_user_enters_wherever_we_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signer, "signer_flags", lambda: ("--allow-insecure-same-user",))
    require_entry(tmp_path / "lab")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_real_user_does_not_pass_a_private_folder(tmp_path: Path) -> None:
    if signer.signer_flags():
        pytest.skip("no user for the signer here")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigError) as caught:
        require_entry(closed / "lab")
    assert caught.value.code == "folder_closed"


def test_what_is_made_can_be_entered_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_open(tmp_path / "above" / "lab")
    finally:
        os.umask(before)
    for made in (tmp_path / "above", tmp_path / "above" / "lab"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o755
