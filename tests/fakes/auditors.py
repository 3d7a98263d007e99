"""An auditor: ``seipd-verify`` as a program of its own, with no daemon."""

from __future__ import annotations

from typing import Any

from services.kernel import canonical
from tests.fakes.programs import run_program


def auditor(*words: object) -> tuple[int, dict[str, Any]]:
    """Run ``seipd-verify``; return its status and what it says."""
    done = run_program("seipd.cli.verify", *words, "--json")
    return done.returncode, canonical.decode_object(done.stdout.encode())
