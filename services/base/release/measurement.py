"""The measurement of an installation: one digest over canonical JSON. Pure.

    {"distributions": [{"digest", "files", "name", "version"}, …], "format": 1, "hooks",
     "interpreter": {"executable", "library", "stdlib"}, "platform", "python", "strays", "version"}

A digest over files is that of the canonical JSON ``{path: sha256 in hex, …}``. The same release on
the same interpreter gives the same digest on every machine: paths are relative, and what an
installer writes of its own (its records, start scripts, byte code) is no part of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.kernel import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT: Final = 1
DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One installed package: this program, or something that it stands on."""

    name: str
    version: str
    file_count: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """The Python that runs it all: program, shared library where there is one, standard library."""

    executable: str
    library: str
    stdlib: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is installed; ``altered`` names files that differ from what their package says."""

    version: str
    platform: str
    python: str
    interpreter: Interpreter
    distributions: tuple[Distribution, ...]
    hooks: str
    """Files that Python runs as it starts (``.pth``), whoever installed them."""
    strays: str
    """Files beside the packages that belong to none."""
    stray_names: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()

    def value(self) -> dict[str, Any]:
        """Return the JSON object that the digest is over."""
        return {
            "format": FORMAT,
            "version": self.version,
            "platform": self.platform,
            "python": self.python,
            "interpreter": {
                "executable": self.interpreter.executable,
                "library": self.interpreter.library,
                "stdlib": self.interpreter.stdlib,
            },
            "distributions": [
                {
                    "name": one.name,
                    "version": one.version,
                    "files": one.file_count,
                    "digest": one.digest,
                }
                for one in sorted(self.distributions, key=lambda one: one.name)
            ],
            "hooks": self.hooks,
            "strays": self.strays,
        }

    @property
    def digest(self) -> str:
        """The measurement, in hex."""
        return hashlib.sha256(canonical.encode(self.value())).hexdigest()


def tree_digest(files: Mapping[str, str]) -> str:
    """Return the digest over files: their names, and the SHA-256 of each in hex."""
    return hashlib.sha256(canonical.encode(dict(files))).hexdigest()
