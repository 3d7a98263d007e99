"""Deciding and doing lie apart: only modules that are listed here touch the world."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(
    path.relative_to(ROOT / "services").as_posix()
    for path in (ROOT / "services").rglob("*.py")
    if "_pb2" not in path.name and "runtime" not in path.parts
)
WORLDLY_MODULES = frozenset(
    [
        "aiohttp",
        "asyncio",
        "fcntl",
        "grpc",
        "mmap",
        "os",
        "pyroute2",
        "select",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
    ]
)
# Of paths; a bare ``open`` is the file's, a method of that name is many things.
WORLDLY_METHODS = frozenset(
    [
        "chmod",
        "exists",
        "glob",
        "hardlink_to",
        "is_dir",
        "is_file",
        "iterdir",
        "lstat",
        "mkdir",
        "read_bytes",
        "read_text",
        "rglob",
        "rmdir",
        "stat",
        "symlink_to",
        "touch",
        "unlink",
        "write_bytes",
        "write_text",
    ]
)
# In every service these wait for the world, and only they.
DOERS = frozenset({"service.py"})
# What does the work of a disk, a socket, a process or a lock, by its name.
ALSO = frozenset(
    {
        *(f"base/storage/{name}.py" for name in ("envelope", "files", "journal", "root")),
        *(f"base/ledger/{name}.py" for name in ("disk", "log", "publish", "store", "writer")),
        *(f"base/ledger/{name}.py" for name in ("copies", "fsck", "shelf")),
        *(f"base/ledger/{name}.py" for name in ("holding", "intake", "telling", "upkeep")),
        "base/ledger/witnessed.py",
        "authority/recovery/recovering.py",
        "authority/rootkeys/auditchain.py",
        "authority/rootkeys/auditcopy.py",
        "authority/rootkeys/auditing.py",
        "authority/rootkeys/rotation.py",
        "authority/serversecrets/store.py",
        "base/attestation/anchors.py",
        *(f"base/attestation/{name}.py" for name in ("devices", "tpm_tools")),
        "base/keywrap/identity.py",
        *(f"base/release/{name}.py" for name in ("installed", "store")),
        *(f"base/signing/{name}.py" for name in ("asking", "client", "recovery_client", "remote")),
        "base/signing/svidfiles.py",
        *(f"base/jobs/{name}.py" for name in ("attempt", "store")),
        *(f"edge/acme/{name}.py" for name in ("account", "advising", "ca", "certfiles")),
        *(f"edge/acme/{name}.py" for name in ("desk", "network", "ordering")),
        *(f"edge/dns/{name}.py" for name in ("asking", "streams")),
        *(f"edge/ddns/{name}.py" for name in ("rfc2136", "telling")),
        "edge/policy/keeping.py",
        *(f"edge/relay/{name}.py" for name in ("carrier", "kernelpath", "sockets", "userpath")),
        "edge/relaying/asking.py",
        "edge/resolver/exchange.py",
        *(f"edge/stun/{name}.py" for name in ("client", "natkind")),
        *(f"edge/wireguard/{name}.py" for name in ("kernel", "links", "network", "genetlink")),
        *(
            f"edge/wireguard/{name}.py"
            for name in ("process", "connection", "requests", "ports", "watch", "ways")
        ),
        *(
            f"edge/wireguard/{name}.py"
            for name in ("choose", "ownership", "sidetable", "userspace")
        ),
    }
)


def touches(source: str) -> set[str]:
    """Return what of the world a module imports or calls; what only types need does not count."""
    tree = ast.parse(source)
    of_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in of_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names} & WORLDLY_MODULES
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module.split(".")[0]} & WORLDLY_MODULES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found |= {node.func.attr} & WORLDLY_METHODS
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & {"open"}
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os.path", {"os"}),
        ("from asyncio import sleep", {"asyncio"}),
        ("def f(path):\n    return path.read_bytes()", {"read_bytes"}),
        ("open('x')", {"open"}),
        ("driver.open()", set()),
        ("if TYPE_CHECKING:\n    import socket", set()),
        ("import hashlib\nhashlib.sha256(b'').digest()", set()),
    ],
)
def test_the_judge_sees_what_touches_the_world(source: str, found: set[str]) -> None:
    assert touches(source) == found


def test_only_the_listed_modules_touch_the_world() -> None:
    worldly = {
        name: touched
        for name in SERVICES
        if Path(name).name not in DOERS
        and name not in ALSO
        and (touched := touches((ROOT / "services" / name).read_text(encoding="utf-8")))
    }
    assert worldly == {}


def test_the_list_names_no_module_that_is_pure_or_gone() -> None:
    idle = {
        name
        for name in ALSO
        if name not in SERVICES
        or not touches((ROOT / "services" / name).read_text(encoding="utf-8"))
    }
    assert idle == set()
