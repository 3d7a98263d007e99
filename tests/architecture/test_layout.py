"""The laws of the tree that no linter knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("seipd", "services")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb2" not in path.name
)
MAX_LINES = 400


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.read_text(encoding="utf-8").count("\n") > MAX_LINES
    }
    assert long == set()


def test_nothing_is_called_utils() -> None:
    names = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.name != "__init__.py"
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_the_lock_files_name_no_host() -> None:
    for path in ROOT.glob("requirements*"):
        assert not re.search(r"https?://|index-url|find-links", path.read_text(encoding="utf-8"))
