"""The signer as a unit of the system would run it: who reaches it, and who can't."""

from __future__ import annotations

import base64
import grp
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.base.crypto.signatures import verify
from services.base.signing.client import GrpcSigner
from tests.fakes.signers import (
    CHECKOUT,
    NOBODY,
    Place,
    memory_holds,
    signer_user_can_run,
    wait_until,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not signer_user_can_run(), reason="needs root and a user seipd-signer"),
]

MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"
GROUP = "daemon"

CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
    except OSError as error:
        print(type(error).__name__)
"""
READ = """
import sys
for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        print(type(error).__name__)
    else:
        print("read", path)
"""
ATTACH = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
seized = libc.ptrace(0x4206, int(sys.argv[1]), 0, 0)
print(seized, ctypes.get_errno())
"""


@pytest.fixture
def place():
    place = Place()
    place.prepare()
    yield place
    place.close()


def run_as(uid: int, script: str, *words: str, groups: tuple[int, ...] = ()) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        user=uid,
        group=NOBODY,
        extra_groups=groups,
        cwd="/",
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_sgn_12_another_user_is_refused_and_the_group_is_not(place) -> None:
    gid = grp.getgrnam(GROUP).gr_gid
    place.keygen()
    place.start("--group", GROUP, groups=[gid])
    wait_until(lambda: stat.S_IMODE(place.socket.stat().st_mode) == 0o660)
    socket_path = str(place.socket)
    assert run_as(NOBODY, CONNECT, socket_path) == "PermissionError"
    assert run_as(NOBODY, CONNECT, socket_path, groups=(gid,)) == ""
    assert run_as(NOBODY, READ, str(place.state), groups=(gid,)) == "PermissionError"
    for folder in (place.state, place.socket.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o710
    assert (place.socket.stat().st_uid, place.socket.stat().st_gid) == (place.uid, gid)


async def test_sgn_12_without_a_group_only_its_user_and_root_reach_it(place) -> None:
    place.keygen()
    place.start()
    wait_until(lambda: stat.S_IMODE(place.socket.stat().st_mode) == 0o600)
    assert run_as(NOBODY, CONNECT, str(place.socket)) == "PermissionError"
    info = await GrpcSigner(str(place.socket)).public_key(scope="platform", key_id="root-1")
    signature = await GrpcSigner(str(place.socket)).sign(MESSAGE, scope="platform", key_id="root-1")
    assert verify(info.public_key, MESSAGE, signature)


def test_a_group_that_the_signer_is_not_in_is_said_with_the_mend(place) -> None:
    assert place.start("--group", GROUP).wait(20) == 2
    said = (place.folder / "signer.log").read_text()
    assert f"SupplementaryGroups={GROUP}" in said
    assert "Traceback" not in said
    assert not place.socket.exists()


def test_sgn_13_the_keys_are_read_by_nobody_else(place) -> None:
    place.keygen()
    pid = str(place.start().pid)
    (sealed,) = (place.state / "keys").iterdir()
    files = [place.unlock_file, sealed, place.state / "keys.json", place.state / "lock"]
    proc = [f"/proc/{pid}/{name}" for name in ("mem", "environ", "maps")]
    seen = run_as(NOBODY, READ, *map(str, files), *proc).split("\n")
    assert seen == ["PermissionError"] * 7


def test_sgn_13_not_even_its_own_user_reads_its_memory_or_attaches(place) -> None:
    place.keygen()
    pid = str(place.start().pid)
    seen = run_as(place.uid, READ, f"/proc/{pid}/mem", f"/proc/{pid}/environ").split("\n")
    assert seen == ["PermissionError"] * 2
    assert run_as(place.uid, ATTACH, pid) == "-1 1"


def test_sgn_13_it_leaves_no_core(place) -> None:
    pid = place.start().pid
    limits = Path(f"/proc/{pid}/limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]


async def test_rkc_16_the_root_secret_is_in_no_log_environment_or_command_line(place) -> None:
    made = place.keygen("--json")
    pid = place.start("--log-level", "debug").pid
    signer = GrpcSigner(str(place.socket))
    await signer.sign(MESSAGE, scope="platform", key_id="root-1")
    seed, unlock = place.seed(), place.unlock_file.read_bytes().strip()
    spellings = [
        form
        for secret in (seed, unlock)
        for form in (
            secret,
            secret.hex().encode(),
            base64.b64encode(secret).rstrip(b"="),
            base64.urlsafe_b64encode(secret).rstrip(b"="),
            repr(secret)[2:-1].encode(),
        )
    ]
    places = {
        "environ": Path(f"/proc/{pid}/environ").read_bytes(),
        "cmdline": Path(f"/proc/{pid}/cmdline").read_bytes(),
        "log": (place.folder / "signer.log").read_bytes(),
        "keygen": (made.stdout + made.stderr).encode(),
    }
    assert places["log"]
    for name, content in places.items():
        assert not any(form in content for form in spellings), name
    files = [path for path in place.state.rglob("*") if path.is_file()]
    assert {"keys.json", "audit.key", "journal"} <= {path.name for path in files}
    for path in files:
        assert not any(form in path.read_bytes() for form in spellings), path
    assert memory_holds(pid, seed), "the search itself must be able to find it"


def test_a_second_signer_on_the_same_state_is_refused(place) -> None:
    place.keygen()
    place.start()
    second = subprocess.run(
        place.command("retire"), capture_output=True, text=True, timeout=60, **place.identity()
    )
    assert (second.returncode, second.stderr.count("\n")) == (6, 1)
    assert second.stderr.startswith(f"error: another signer uses {place.state}")


def test_ready_is_told_when_it_listens_and_not_before(place) -> None:
    address = place.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        address.chmod(0o777)
        systemd.settimeout(30)
        place.start(NOTIFY_SOCKET=str(address))
        assert systemd.recv(100) == b"READY=1"
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(place.socket))


def test_a_stale_socket_is_replaced_and_none_is_left(place) -> None:
    first = place.start()
    first.kill()
    first.wait(20)
    assert place.socket.is_socket()
    second = place.start()
    wait_until(lambda: run_as(place.uid, CONNECT, str(place.socket)) == "")
    second.terminate()
    assert second.wait(20) == 0
    assert not place.socket.exists()
