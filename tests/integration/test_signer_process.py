"""The signer as a child of the daemon: made, dropped to its user, watched, and gone with it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from seipd.daemon.signer_process import SignerProcess
from services.base.crypto.signatures import verify
from services.base.signing.client import GrpcSigner
from services.kernel.errors import ConfigError, SeipdError, StartError
from services.kernel.service import HealthState
from tests.fakes.signers import (
    CHECKOUT,
    NOBODY,
    Place,
    is_running,
    memory_holds,
    signer_user_can_run,
    wait_until,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not signer_user_can_run(), reason="needs root and a user seipd-signer"),
]

MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"

DAEMON = """
import asyncio, sys
from pathlib import Path
from seipd.daemon.signer_process import SignerProcess
from services.base.signing.client import GrpcSigner

async def main(state, socket, unlock_file):
    process = SignerProcess(
        state=Path(state), socket=Path(socket), unlock_file=Path(unlock_file), allow_same_user=False
    )
    await process.ensure_root_key(key_id="root-1", purpose="seipd/record/v1")
    await process.start()
    message = b"seipd/record/v1\\0" + bytes(32)
    await GrpcSigner(socket).sign(message, scope="platform", key_id="root-1")
    print(process.health().detail, flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def place():
    place = Place()
    yield place
    place.close()


@pytest.fixture
async def process(place):
    process = process_of(place)
    yield process
    await process.stop()


def process_of(place: Place, *, allow_same_user: bool = False) -> SignerProcess:
    return SignerProcess(
        state=place.state,
        socket=place.socket,
        unlock_file=place.unlock_file,
        allow_same_user=allow_same_user,
    )


async def make_key(process: SignerProcess) -> None:
    await process.ensure_root_key(key_id="root-1", purpose="seipd/record/v1")


def pid_in(process: SignerProcess) -> int:
    found = re.search(r"pid (\d+)", process.health().detail)
    assert found, process.health()
    return int(found[1])


async def sign(place: Place) -> bytes:
    return await GrpcSigner(str(place.socket)).sign(MESSAGE, scope="platform", key_id="root-1")


async def test_a_first_start_makes_everything_once_and_for_the_signer_s_user(
    place, process
) -> None:
    await make_key(process)
    secret = place.unlock_file.read_bytes()
    await make_key(process)
    assert place.unlock_file.read_bytes() == secret
    for path, mode in (
        (place.state, 0o710),
        (place.state / "keys", 0o700),
        (place.state / "keys.json", 0o600),
        (place.unlock_file, 0o600),
    ):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (place.uid, mode), path
    await process.start()
    assert process.health().state is HealthState.OK
    info = await GrpcSigner(str(place.socket)).public_key(scope="platform", key_id="root-1")
    assert verify(info.public_key, MESSAGE, await sign(place))
    status = Path(f"/proc/{pid_in(process)}/status").read_text()
    assert re.search(rf"Uid:\s{place.uid}\s{place.uid}\s{place.uid}\s", status)
    assert re.search(r"Groups:\s*\n", status)
    assert re.search(r"CapEff:\s0+\n", status)


async def test_a_relative_folder_is_one_of_the_daemon_s_own(place, monkeypatch) -> None:
    monkeypatch.chdir(place.folder)
    process = SignerProcess(
        state=Path("data-signer"),
        socket=Path("data-signer/run/signer.sock"),
        unlock_file=Path("data-signer.unlock"),
        allow_same_user=False,
    )
    await make_key(process)
    await process.start()
    await process.stop()
    assert (place.state / "keys.json").exists()


async def test_stop_ends_the_child_and_may_be_said_twice(place, process) -> None:
    await make_key(process)
    await process.start()
    pid = pid_in(process)
    await process.stop()
    await process.stop()
    assert not is_running(pid)
    assert not place.socket.exists()
    assert process.health().state is HealthState.STOPPED


async def test_a_signer_that_dies_is_started_again(place, process) -> None:
    await make_key(process)
    await process.start()
    for _ in range(2):
        pid = pid_in(process)
        os.kill(pid, signal.SIGKILL)
        while process.health().state is HealthState.OK:
            await asyncio.sleep(0.02)
        assert "status -9" in process.health().detail
        while process.health().state is not HealthState.OK:
            await asyncio.sleep(0.02)
        assert pid_in(process) != pid
        assert await sign(place)


async def test_a_signer_of_the_system_is_used_and_left_alone(place, process) -> None:
    place.prepare()
    place.keygen()
    signer = place.start()
    await make_key(process)
    await process.start()
    assert process.health().detail == "a unit of the system runs it"
    assert await sign(place)
    await process.stop()
    assert signer.poll() is None


async def test_a_signer_of_the_system_without_the_key_is_said_with_the_mend(place, process) -> None:
    place.prepare()
    place.start()
    with pytest.raises(ConfigError) as caught:
        await make_key(process)
    assert caught.value.code == "no_root_key"
    assert "seipd-signer keygen" in caught.value.mend


async def test_a_signer_under_the_daemon_s_own_user_is_refused(place, process) -> None:
    trial = process_of(place, allow_same_user=True)
    await make_key(trial)
    await trial.start()
    try:
        assert place.socket.stat().st_uid == os.geteuid()
        with pytest.raises(StartError) as caught:
            await process.start()
        assert caught.value.code == "insecure_user"
        assert await sign(place)
    finally:
        await trial.stop()


async def test_without_the_unlock_secret_nothing_starts_and_none_is_invented(
    place, process
) -> None:
    await make_key(process)
    place.unlock_file.unlink()
    with pytest.raises(StartError) as caught:
        await process.start()
    assert (caught.value.service, caught.value.code) == ("signer", "signer_unavailable")
    with pytest.raises(ConfigError, match="there is no unlock file"):
        await make_key(process)
    assert not place.unlock_file.exists()


async def test_a_failed_start_leaves_no_child(place, process) -> None:
    await make_key(process)
    (place.state / "keys.json").write_bytes(b"[]x")
    with pytest.raises(StartError):
        await process.start()
    with pytest.raises(ConfigError, match=r"keys\.json.*backup"):
        await make_key(process)
    assert subprocess.run(["pgrep", "-f", str(place.state)], capture_output=True).stdout == b""


async def test_a_link_in_the_signer_s_folder_leads_root_nowhere(place, process) -> None:
    await make_key(process)
    target = place.folder / "precious"
    target.mkdir(mode=0o700)
    (place.state / "run").symlink_to(target)
    with pytest.raises(StartError):
        await process.start()
    assert (target.stat().st_uid, stat.S_IMODE(target.stat().st_mode)) == (0, 0o700)
    assert list(target.iterdir()) == []


async def test_only_root_starts_it_as_another_user(place) -> None:
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from seipd.daemon.signer_process import SignerProcess\n"
        "p = Path(sys.argv[1])\n"
        "s = SignerProcess(state=p, socket=p / 's', unlock_file=p, allow_same_user=False)\n"
        "asyncio.run(s.start())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(place.state)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "only root can start the signer as a user of its own" in done.stderr


async def test_no_user_is_said_with_the_command_that_makes_it(place, process, monkeypatch) -> None:
    monkeypatch.setattr("seipd.daemon.signer_process.SIGNER_USER", "seipd-nobody-at-all")
    for call in (process.start, lambda: make_key(process)):
        with pytest.raises(SeipdError) as caught:
            await call()
        assert caught.value.code == "no_signer_user"
        assert "useradd --system" in caught.value.mend
    assert list(place.folder.iterdir()) == []


@pytest.fixture
def daemon(place):
    daemon = subprocess.Popen(
        [
            sys.executable, "-c", DAEMON,
            str(place.state), str(place.socket), str(place.unlock_file),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    yield daemon
    daemon.kill()
    daemon.communicate()


def signer_pid(daemon: subprocess.Popen[bytes]) -> int:
    assert daemon.stdout
    return int(daemon.stdout.readline().rsplit(b" ", 1)[1])


def test_rkc_16_the_daemon_s_memory_never_holds_the_root_secret(place, daemon) -> None:
    pid = signer_pid(daemon)
    seed = place.seed()
    assert memory_holds(pid, seed), "the search itself must be able to find it"
    assert not memory_holds(daemon.pid, seed)
    for name in ("environ", "cmdline"):
        assert seed.hex().encode() not in Path(f"/proc/{daemon.pid}/{name}").read_bytes()


def test_the_signer_ends_with_a_daemon_that_is_killed(place, daemon) -> None:
    pid = signer_pid(daemon)
    assert is_running(pid)
    daemon.kill()
    wait_until(lambda: not is_running(pid))
