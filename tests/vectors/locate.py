"""Where the published test vectors lie."""

from __future__ import annotations

from pathlib import Path

_DATA = Path(__file__).resolve().parent / "data"


def vectors_dir(name: str) -> Path:
    """Return the folder of one set of vectors.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (_DATA / name).is_dir():
        raise FileNotFoundError(f"no vectors named {name}")
    return _DATA / name
