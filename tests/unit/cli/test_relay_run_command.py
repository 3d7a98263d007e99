"""What ``seipd relay run`` refuses before it carries anything, and what its unit says."""

from __future__ import annotations

from pathlib import Path

import pytest

from seipd.cli.relay_run import run
from tests.fakes.programs import run_program

ROOT = Path(__file__).parents[3]
MESH = "ab" * 32


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--public-address", "203.0.113.9"], "say which mesh"),
        (["--public-address", "203.0.113.9", "--mesh", MESH], "say where a server"),
        (["--public-address", "203.0.113.9", "--mesh", "short"], "a mesh id is"),
        (["--public-address", "relay.example", "--mesh", MESH, "--server", "h:1"], "not an IP"),
        (
            [
                *("--public-address=192.0.2.1", "--public-address=192.0.2.2"),
                *(f"--mesh={MESH}", "--server=192.0.2.3:9100"),
            ],
            "two of IPv4",
        ),
        (["--public-address", "127.0.0.1", "--mesh", MESH, "--server", "192.0.2.3:9"], "no relay"),
        (["--mesh", MESH, "--server", "192.0.2.3:9100"], "--public-address"),
    ],
)
def test_wrong_settings_are_told_in_a_line(tmp_path, words: list[str], said: str) -> None:
    state = tmp_path / "relay"
    done = run_program("seipd", "relay", "run", "--region=eu-west", f"--state={state}", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_unit_names_variables_that_there_are() -> None:
    lines = (ROOT / "systemd" / "seipd-relay.service").read_text(encoding="utf-8")
    line = next(one for one in lines.splitlines() if one.startswith("# SEIPD_RELAY_"))
    named = {one.strip() for one in line.removeprefix("#").split(",")}
    assert named <= {str(option.envvar) for option in run.params}
    assert len(named) == 4
