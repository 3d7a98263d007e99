"""Where the published test vectors lie: in the tree, or in a folder beside the checkout."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
_BESIDE = _HERE.parents[1].parent / "shared" / "vectors"


def vectors_dir(name: str) -> Path:
    """Return the folder of one set of vectors.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for root in (_HERE / "data", _BESIDE):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"no vectors named {name}")
