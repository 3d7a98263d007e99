"""Reads the installation from the disk: packages by their RECORD, the interpreter, and the rest.

The files themselves are hashed, never what a RECORD says of them. ``/proc/self/exe`` alone would
be the interpreter's word and nothing of this program. What is not seen: byte code in
``__pycache__``, which Python may run in place of an unchanged source, and memory; the measurement
is this program's own word, and only hardware can vouch for the program that gives it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.base.release.measurement import (
    Distribution,
    Interpreter,
    Measurement,
    tree_digest,
)
from services.kernel.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROGRAM: Final = "seipd"
_PACKAGES: Final = ("seipd", "services")
# They install and are not run by the daemon; which one is there is the machine's business.
_INSTALLERS: Final = frozenset({"pip", "setuptools", "wheel", "uv"})
_WRITTEN_BY_INSTALLERS: Final = frozenset(
    {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}
)
# Parts of the standard library that systems package apart from the interpreter.
_OPTIONAL: Final = frozenset(
    {"distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtle", "turtledemo"}
)
_BYTE_CODE: Final = frozenset({".pyc", ".pyo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Where everything lies."""

    site_folders: tuple[Path, ...]
    scripts: Path
    executable: Path
    library: Path | None
    stdlib: Path
    source_folders: tuple[Path, ...] = ()
    """The program's own packages, where they are run from a checkout and not installed."""


def this_installation() -> Installation:
    """Return where the running program and its interpreter lie."""
    paths = sysconfig.get_paths()
    folders = dict.fromkeys(Path(paths[name]) for name in ("purelib", "platlib"))
    return Installation(
        site_folders=tuple(folders),
        scripts=Path(paths["scripts"]),
        executable=Path(sys.executable).resolve(),
        library=_loaded_library(),
        stdlib=Path(paths["stdlib"]),
        source_folders=tuple(_sources(folders)),
    )


def _loaded_library() -> Path | None:
    """Return the interpreter's shared library, if it runs by one: what lies there may be idle."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.name.startswith("libpython3."):
            return path
    return None


def measure(installation: Installation) -> Measurement:
    """Hash all that is installed; takes part of a second and reads some 100 MB.

    Raises:
        CorruptError: ``release_unreadable``: a file that must be there is not, or can't be read.
    """
    try:
        return _measure(installation)
    except OSError as error:
        raise CorruptError(
            f"the installation can't be read: {error}",
            path=str(error.filename or ""),
            code="release_unreadable",
            mend="install the release again",
        ) from error


def _measure(installation: Installation) -> Measurement:
    distributions: list[Distribution] = []
    altered: list[str] = []
    owned: set[Path] = set()
    version = ""
    for found in metadata.distributions(path=[str(path) for path in installation.site_folders]):
        name = _normal(found.metadata["Name"] or "")
        files, wrong = _files_of(found, installation.scripts, owned)
        if name in _INSTALLERS:
            continue
        if name == PROGRAM:
            version = found.version
            files |= _source_files(installation.source_folders)
        altered += wrong
        distributions.append(
            Distribution(
                name=name,
                version=found.version,
                file_count=len(files),
                digest=tree_digest(files),
            )
        )
    hooks, strays = _beside(installation.site_folders, owned)
    return Measurement(
        version=version,
        platform=sysconfig.get_platform(),
        python=sys.version.split(maxsplit=1)[0],
        interpreter=Interpreter(
            executable=_hash(installation.executable),
            library=_hash(installation.library) if installation.library else "",
            stdlib=tree_digest(_standard_library(installation.stdlib)),
        ),
        distributions=tuple(distributions),
        hooks=tree_digest(hooks),
        strays=tree_digest(strays),
        stray_names=tuple(sorted(strays)),
        altered=tuple(sorted(altered)),
    )


def _files_of(
    found: metadata.Distribution, scripts: Path, owned: set[Path]
) -> tuple[dict[str, str], list[str]]:
    """Return the hashes of a package's files, and the names that differ from its RECORD.

    All its files become ``owned``, also those that its installer wrote and that count for nothing.
    """
    files: dict[str, str] = {}
    altered = []
    for entry in found.files or ():
        path = Path(os.path.normpath(str(entry.locate())))
        if path.suffix in _BYTE_CODE or path.parent == scripts:
            continue
        owned.add(path)
        if entry.name in _WRITTEN_BY_INSTALLERS and entry.parent.suffix == ".dist-info":
            continue
        digest = _hash(path)
        files[str(entry)] = digest
        if entry.hash and entry.hash.mode == "sha256" and entry.hash.value != _record_form(digest):
            altered.append(str(entry))
    return files, altered


def _source_files(folders: Iterable[Path]) -> dict[str, str]:
    return {
        str(path.relative_to(folder.parent)): _hash(path)
        for folder in folders
        for path in _walk(folder)
    }


def _sources(site_folders: Iterable[Path]) -> Iterator[Path]:
    for name in _PACKAGES:
        spec = util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(spec.submodule_search_locations[0])
        if folder.parent not in site_folders:
            yield folder


def _beside(folders: Iterable[Path], owned: set[Path]) -> tuple[dict[str, str], dict[str, str]]:
    """Return start-up hooks, whoever owns them, and files that nobody owns."""
    hooks, strays = {}, {}
    for folder in folders:
        for path in _walk(folder):
            name = str(path.relative_to(folder))
            if path.suffix == ".pth" and path.parent == folder:
                hooks[name] = _hash(path)
            elif path not in owned:
                strays[name] = _hash(path)
    return hooks, strays


def _standard_library(folder: Path) -> dict[str, str]:
    """Return the modules of the standard library, compiled ones too, but what may be left out."""
    names = sys.stdlib_module_names - _OPTIONAL
    files = {}
    for path in _walk(folder, skip=frozenset({"site-packages", "dist-packages", *_OPTIONAL})):
        name = path.relative_to(folder)
        top = name.parts[1] if name.parts[0] == "lib-dynload" else name.parts[0]
        if top.split(".")[0] in names:
            files[str(name)] = _hash(path)
    return files


def _walk(folder: Path, *, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - skip - {"__pycache__"})
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix not in _BYTE_CODE:
                yield path


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _record_form(digest: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode()


def _normal(name: str) -> str:
    """Return a name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()
