"""Backups, disks that were put back and clones: servers come back, and nobody looks like a liar."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from seipd.lab import net
from services.kernel.errors import UnavailableError
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from seipd.lab.mesh import Lab
    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def mesh():
    """Three servers at work, and a host on which nothing runs."""
    with lab_of(4, 1) as built:
        built.up(lambda line: None, server_count=3)
        yield built


def until(probe: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def on(lab: Lab, host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*host.enter(), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=lab.environment(host),
    )


def working(lab: Lab) -> list[Host]:
    return [lab.plan.host(name) for name in ("s1", "s2", "s3")]


def agree(lab: Lab) -> bool:
    return len({lab.status(host)["state_hash"] for host in working(lab)}) == 1


def untrusted(lab: Lab) -> list[str]:
    rows = [row for host in working(lab) for row in lab.seipd_json(host, "servers")]
    return [row["server_id"] for row in rows if row["state"] == "untrusted"]


def join(lab: Lab, token: str, name: str) -> subprocess.CompletedProcess[str]:
    """Let an endpoint join from its own state folder; its tunnel is not brought up."""
    state = str(lab.plan.folder / f"state-{name}")
    return on(lab, lab.plan.host("e1"), "seip", "--state", state, "join", token, "--name", name)


def epoch_of(lab: Lab, asked: Host, server: Host) -> int:
    server_id = lab.status(server)["server_id"]
    log = lab.plan.host(asked.name).data_root / "ledger" / "feeds" / server_id / "checkpoint"
    return int(log.read_text().splitlines()[0].rpartition("/")[2])


def kill(lab: Lab, host: Host) -> None:
    daemon = lab.daemon_pid(host)
    os.kill(daemon, signal.SIGKILL)
    until(lambda: daemon not in net.pids(host.namespace))


def adds(lab: Lab, host: Host, node: str) -> None:
    """Write something as soon as it may: tunnels and health come before that, and it says so."""
    until(lambda: on(lab, host, "seipd", "tree", "add", node).returncode == 0)


def put_back(lab: Lab, host: Host, backup: Path) -> None:
    """Lose a server's data root and restore it from a backup."""
    kill(lab, host)
    shutil.rmtree(host.data_root)
    said = lab.seipd_json(host, "restore", str(backup))
    assert said["missing"] == []
    lab.start_server(host)


@pytest.mark.parametrize("name", ["s2", "s1"])
def test_pub_14_a_restored_server_comes_back_and_old_invitations_are_no_good(
    mesh: Lab, name: str
) -> None:
    """One that asks the root on another server, then the one that holds the root key itself."""
    host = mesh.plan.host(name)
    other = mesh.plan.host("s3")
    unused, used = mesh.invite(host, "endpoint"), mesh.invite(host, "endpoint")
    backup = mesh.plan.folder / f"{name}.backup"
    mesh.seipd(host, "backup", str(backup))
    assert join(mesh, used, f"{name}-after").returncode == 0
    for number in range(3):
        assert join(mesh, mesh.invite(host, "endpoint"), f"{name}-{number}").returncode == 0
    until(lambda: agree(mesh))
    before = mesh.status(other)["state_hash"]

    put_back(mesh, host, backup)

    until(lambda: agree(mesh) and epoch_of(mesh, other, host) == 2)
    assert mesh.status(host)["state_hash"] != before  # the invitations are cancelled
    for endpoint in (f"{name}-after", *(f"{name}-{number}" for number in range(3))):
        assert on(mesh, host, "seipd", "explain", endpoint).returncode == 0
    for token in (unused, used):
        refused = join(mesh, token, f"{name}-late")
        assert refused.returncode == 4, refused.stderr
        assert "not valid" in refused.stderr
    assert join(mesh, mesh.invite(host, "endpoint"), f"{name}-new").returncode == 0
    until(lambda: agree(mesh))
    assert untrusted(mesh) == []
    assert not (host.data_root / "identity" / "restored.json").exists()
    for one in working(mesh):
        assert on(mesh, one, "seipd", "ledger", "verify").returncode == 0


def test_everybody_starts_again_after_an_epoch(mesh: Lab) -> None:
    """What a crash leaves behind knows which epoch each feed is in."""
    for host in working(mesh):
        kill(mesh, host)
        mesh.start_server(host)
    adds(mesh, mesh.plan.host("s2"), "after-the-crash")
    until(lambda: agree(mesh))
    assert untrusted(mesh) == []


@pytest.mark.long
def test_without_the_root_a_restored_server_says_what_it_waits_for(mesh: Lab) -> None:
    first, second = mesh.plan.host("s1"), mesh.plan.host("s2")
    backup = mesh.plan.folder / "second.backup"
    mesh.seipd(second, "backup", str(backup))
    mesh.stop_server(first)
    try:
        kill(mesh, second)
        shutil.rmtree(second.data_root)
        mesh.seipd(second, "restore", str(backup))
        mesh.launch_server(second)
        until(lambda: says(mesh, second, "no writes yet"))
        refused = on(mesh, second, "seipd", "tree", "add", "too-early")
        assert refused.returncode == 7, refused.stderr
        assert "restored from a backup" in refused.stderr
    finally:
        mesh.start_server(first)
    until(lambda: mesh.status(second)["healthy"])
    adds(mesh, second, "in-time")
    until(lambda: agree(mesh))
    assert untrusted(mesh) == []


def says(lab: Lab, host: Host, words: str) -> bool:
    try:
        return words in str(lab.status(host)["services"])
    except UnavailableError:
        return False


def test_sto_07_yesterdays_copy_of_the_data_root_catches_up_and_goes_on(mesh: Lab) -> None:
    host = mesh.plan.host("s3")
    copy = mesh.plan.folder / "yesterday"
    token = mesh.invite(host, "endpoint")
    mesh.stop_server(host)
    shutil.copytree(host.data_root, copy)
    mesh.start_server(host)
    assert join(mesh, token, "today").returncode == 0
    for number in range(5):
        mesh.seipd(host, "tree", "add", f"today-{number}")
    until(lambda: agree(mesh))
    kill(mesh, host)
    shutil.rmtree(host.data_root)
    copy.rename(host.data_root)
    mesh.start_server(host)
    adds(mesh, host, "tomorrow")
    again = join(mesh, token, "tomorrow")
    assert (again.returncode, "used up" in again.stderr) == (6, True)
    until(lambda: agree(mesh))
    listed = on(mesh, host, "seipd", "tree", "ls").stdout
    assert re.search(r"\btoday-4\b", listed)
    assert untrusted(mesh) == []


def test_a_clone_beside_the_original_stops_one_of_them_and_accuses_nobody(mesh: Lab) -> None:
    host, beside = mesh.plan.host("s3"), mesh.plan.host("s4")
    shutil.copytree(host.data_root, beside.data_root, ignore=shutil.ignore_patterns("run", "lock"))
    shutil.copy(f"{host.data_root}.unlock", f"{beside.data_root}.unlock")
    mesh.launch_server(beside)
    until(lambda: says(mesh, beside, "ledger"))
    time.sleep(1)
    on(mesh, host, "seipd", "tree", "add", "by-the-original")
    until(
        lambda: any(
            says(mesh, one, "another copy of this server is running") for one in (host, beside)
        )
    )
    stopped = next(one for one in (host, beside) if says(mesh, one, "another copy of this server"))
    refused = on(mesh, stopped, "seipd", "tree", "add", "by-the-stopped")
    assert refused.returncode == 7
    assert "stop one of them" in refused.stderr
    mesh.stop_server(beside)
    mesh.seipd(beside, "down")
    mesh.stop_server(host)
    mesh.start_server(host)
    adds(mesh, host, "alone-again")
    until(lambda: agree(mesh))
    assert untrusted(mesh) == []


def test_the_original_of_a_server_that_was_restored_elsewhere_stops(mesh: Lab) -> None:
    original, elsewhere = mesh.plan.host("s2"), mesh.plan.host("s4")
    shutil.rmtree(elsewhere.data_root, ignore_errors=True)
    backup = mesh.plan.folder / "moved.backup"
    mesh.seipd(original, "backup", str(backup))
    shutil.copy(f"{original.data_root}.unlock", f"{elsewhere.data_root}.unlock")
    mesh.seipd(elsewhere, "restore", str(backup))
    mesh.launch_server(elsewhere)
    until(lambda: says(mesh, original, "this server was restored elsewhere"))
    refused = on(mesh, original, "seipd", "tree", "add", "by-the-original")
    assert refused.returncode == 7
    mesh.stop_server(original)
    until(lambda: mesh.status(elsewhere)["healthy"])
    adds(mesh, elsewhere, "moved")
    others = [mesh.plan.host("s1"), mesh.plan.host("s3"), elsewhere]
    until(lambda: len({mesh.status(one)["state_hash"] for one in others}) == 1)
    rows = [row for host in others for row in mesh.seipd_json(host, "servers")]
    assert "untrusted" not in {row["state"] for row in rows}


def test_a_single_server_opens_its_new_epoch_by_itself() -> None:
    with lab_of(1) as lab:
        (host,) = lab.plan.servers
        lab.up(lambda line: None)
        backup = lab.plan.folder / "backup"
        lab.invite(host, "endpoint")
        lab.seipd(host, "backup", str(backup))
        lab.seipd(host, "tree", "add", "lost")
        put_back(lab, host, backup)
        adds(lab, host, "later")
        listed = on(lab, host, "seipd", "tree", "ls").stdout
        assert "later" in listed
        assert "lost" not in listed
        until(lambda: "/2\n" in (host.data_root / "ledger/feed/checkpoint").read_text())
        assert on(lab, host, "seipd", "ledger", "verify").returncode == 0
