"""The program: what it imports, and what it says to whoever starts it wrongly."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

RECORD = "seipd/record/v1"
LOG_OF_TILES = (
    "checkpoint", "disk", "fsck", "fuse", "journal", "log", "merkle", "note", "prefix", "publish",
    "staging", "store", "tiles",
)  # fmt: skip


def signer(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seipd.signerd", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"]} | env,
    )


def test_the_signer_knows_no_mesh_and_no_web_server() -> None:
    script = (
        "import sys, seipd.signerd.main, seipd.signerd.app\n"
        "print(*sorted(name for name in sys.modules if name.startswith('services.')"
        " or name.split('.')[0] in ('aiohttp', 'pyroute2', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    allowed = (
        "kernel", "base.crypto", "base.storage", "base.keywrap", "base.signing", "base.spiffe",
        "runtime.clock", "runtime.tasks", *(f"base.ledger.{part}" for part in LOG_OF_TILES),
    )  # fmt: skip
    strangers = [
        name
        for name in done.stdout.split()
        if name not in {"services.base", "services.base.ledger", "services.runtime"}
        and not name.startswith(tuple(f"services.{part}" for part in allowed))
    ]
    assert done.returncode == 0, done.stderr
    assert strangers == []


def test_run_is_meant_where_no_command_is_named(tmp_path) -> None:
    done = signer("--state", str(tmp_path / "s"), "--allow-insecure-same-user")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no unlock file")
    assert "--socket" in signer("run", "--help").stdout
    assert "keygen" in signer("--help").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_refuses_root(tmp_path) -> None:
    for words in (["run"], ["keygen", "--purpose", RECORD]):
        done = signer(*words, "--state", str(tmp_path / "signer"))
        assert done.returncode == 2
        assert done.stderr.startswith("error: the signer does not run as root — run it as the user")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bad_option_is_one_line_with_the_way_to_the_help() -> None:
    done = signer("run", "--stat", "x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "--state" in done.stderr


def test_a_socket_path_that_is_too_long_is_said(tmp_path) -> None:
    unlock = tmp_path / "unlock"
    unlock.write_text("x" * 43)
    unlock.chmod(0o600)
    done = signer(
        "--state", str(tmp_path / "s"), "--unlock-file", str(unlock), "--allow-insecure-same-user",
        "--socket", str(tmp_path / ("s" * 100)),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: the socket's path is longer than 107 bytes — choose")


def test_it_ends_at_once_when_its_parent_is_another(tmp_path) -> None:
    done = signer("--end-with", "1", "--state", str(tmp_path / "signer"))
    assert done.returncode == 2
    assert "has ended" in done.stderr


def test_two_kinds_of_output_of_keygen(tmp_path) -> None:
    unlock = tmp_path / "unlock"
    unlock.write_text("x" * 43)
    unlock.chmod(0o600)
    common = [
        "--state", str(tmp_path / "signer"), "--unlock-file", str(unlock),
        "--allow-insecure-same-user",
    ]  # fmt: skip
    plain = signer("keygen", *common, "--purpose", RECORD)
    scope, key_id, state, public_key = plain.stdout.split()
    assert (scope, key_id, state, len(public_key)) == ("platform", "root-1", "active", 43)
    row = signer("keygen", *common, "--purpose", RECORD, "--json").stdout
    assert f'"public_key": "{public_key}"' in row
    assert signer("keygen", *common, "--purpose", "seipd/token/v1").returncode == 6
    assert signer("retire", *common).stdout.split()[2] == "retired"
    none = signer("retire", *common, "--key-id", "root-9")
    assert (none.returncode, none.stderr.count("\n")) == (5, 1)


def test_sgn_13_it_leaves_no_core_is_read_by_nobody_and_gains_no_rights() -> None:
    script = (
        "import ctypes, os, re, resource\n"
        "from seipd.signerd.lifecycle import harden\n"
        "harden()\n"
        "status = open('/proc/self/status').read()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),"
        " *re.findall(r'(?:NoNewPrivs|Umask):\\s*(\\d+)', status))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "(0, 0) 0 0077 1\n", done.stderr


def test_what_lies_at_the_socket_s_path_and_is_none_is_left_alone(tmp_path) -> None:
    unlock, precious = tmp_path / "unlock", tmp_path / "precious"
    unlock.write_text("x" * 43)
    unlock.chmod(0o600)
    precious.write_text("a letter")
    done = signer(
        "--state", str(tmp_path / "s"), "--unlock-file", str(unlock), "--allow-insecure-same-user",
        "--socket", str(precious),
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is there and no socket" in done.stderr
    assert precious.read_text() == "a letter"
