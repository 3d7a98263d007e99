"""What ``seipd worker`` tells while the daemon works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.testing import CliRunner

from seipd.cli import worker as command
from seipd.cli.main import seipd_group

if TYPE_CHECKING:
    import pytest

KIND = "acme.order/1"


def job(number: int, state: str, *, attempt: int = 1, error: str | None = None) -> dict:
    return {
        "id": f"job-{number:016x}",
        "kind": KIND,
        "key": f"{number}.mesh.example",
        "state": state,
        "attempt": attempt,
        "max_attempts": 24,
        "run_at_ms": 1_800_000_060_000,
        "created_ms": 1_800_000_000_000,
        "changed_ms": 1_800_000_000_000 + attempt,
        "error_code": "ca_slow" if error else None,
        "error": error,
    }


def told(monkeypatch: pytest.MonkeyPatch, *pages: list[dict]) -> list[str]:
    """Return what is printed while the queue looks like this, one look after the other."""
    left = iter(pages)

    def ask(settings, method, path, body=None):
        assert (method, path) == ("GET", "/api/jobs?kind=acme.order%2F1&limit=500")
        try:
            return {"jobs": next(left), "cursor": None}
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(command, "ask", ask)
    monkeypatch.setattr(command, "POLL_S", 0.0)
    done = CliRunner().invoke(seipd_group(), ["worker", KIND])
    return done.stdout.splitlines()


def test_each_attempt_that_ends_is_told_once(monkeypatch) -> None:
    lines = told(
        monkeypatch,
        [job(1, "ready", attempt=0)],
        [job(1, "running")],
        [job(1, "ready", error="the CA is away")],
        [job(1, "ready", error="the CA is away")],
        [job(1, "running", attempt=2, error="the CA is away")],
        [job(1, "done", attempt=2), job(2, "ready", attempt=0)],
        [job(1, "done", attempt=2), job(2, "dead", error="never\x1b[31m")],
    )
    assert [line.split("  ")[2:4] for line in lines] == [
        ["1.mesh.example", "ready"],
        ["1.mesh.example", "done"],
        ["2.mesh.example", "dead"],
    ]
    assert "attempt 1/24" in lines[0]
    assert "the CA is away" in lines[0]
    assert "\x1b" not in lines[2]


def test_what_ended_before_is_not_told(monkeypatch) -> None:
    before = [job(1, "done"), job(2, "dead", error="no"), job(3, "ready", error="away")]
    assert told(monkeypatch, before, before) == []
