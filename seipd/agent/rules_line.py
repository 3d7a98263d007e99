"""What a person is told of the rules that this endpoint keeps."""

from __future__ import annotations

from typing import Any


def rules_line(policy: dict[str, Any]) -> str:
    """Return whether the rules are kept here, and why not."""
    return "kept here, too" if policy["state"] == "kept" else f"kept by servers: {policy['why']}"
