"""An auditor: ``seipd-verify`` as a program of its own, with no daemon."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from services.kernel import canonical


def auditor(*words: object) -> tuple[int, dict[str, Any]]:
    """Run ``seipd-verify``; return its status and what it says."""
    command = [sys.executable, "-m", "seipd.cli.verify", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, canonical.decode_object(done.stdout.encode())
