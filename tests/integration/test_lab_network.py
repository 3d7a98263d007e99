"""The cables of a lab, with plain ping and no daemon; and what is left after a crash: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from seipd.lab import net
from seipd.lab.mesh import Lab, take_down
from seipd.lab.plan import LabPlan
from services.kernel import canonical
from services.kernel.errors import ConflictError, InputError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

PREFIX = f"n{os.getpid() % 1000000}"


@pytest.fixture
def cables(tmp_path: Path):
    """Two servers and an endpoint, nothing running on them, as ``up`` would leave the folder."""
    plan = LabPlan(prefix=PREFIX, folder=tmp_path / "lab", server_count=2, endpoint_count=1)
    plan.folder.mkdir()
    (plan.folder / "lab.json").write_bytes(canonical.encode(plan.value()))
    try:
        net.build(plan, plan.hosts)
        yield plan
    finally:
        net.remove(PREFIX)
        assert net.namespaces(PREFIX) == []


def hears(plan: LabPlan, one: str, other: str) -> bool:
    ping = ("ping", "-c", "1", "-W", "1", plan.host(other).address)
    done = subprocess.run([*plan.host(one).enter(), *ping], capture_output=True, check=False)
    return done.returncode == 0


def test_every_host_hears_every_other(cables: LabPlan) -> None:
    names = [host.name for host in cables.hosts]
    assert all(hears(cables, one, other) for one in names for other in names if one != other)


def test_nothing_of_a_lab_shows_in_the_machine_s_own_network(cables: LabPlan) -> None:
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    assert "br0" not in links.stdout
    assert "v-s1" not in links.stdout


def test_a_partition_cuts_two_hosts_and_no_third_until_healed(cables: LabPlan) -> None:
    net.partition(cables.host("s1"), cables.host("s2"))
    assert not hears(cables, "s1", "s2")
    assert not hears(cables, "s2", "s1")
    assert hears(cables, "e1", "s1")
    assert hears(cables, "e1", "s2")
    net.partition(cables.host("s2"), cables.host("s1"))
    assert net.heal(cables.hosts) == 2, "cutting twice is cutting once"
    assert hears(cables, "s1", "s2")
    assert net.heal(cables.hosts) == 0


def test_a_host_is_not_cut_from_itself(cables: LabPlan) -> None:
    with pytest.raises(InputError, match="from itself"):
        net.partition(cables.host("s1"), cables.host("s1"))


def test_down_ends_processes_that_ignore_a_kind_word(cables: LabPlan, monkeypatch) -> None:
    monkeypatch.setattr(net, "END_TIMEOUT_S", 0.5)
    stubborn = "trap '' TERM; echo ready; while :; do read -r -t 60 < <(:); sleep 60; done"
    child = subprocess.Popen(
        [*cables.host("s1").enter(), "bash", "-c", stubborn], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline() == b"ready\n"
        assert len(take_down(cables.folder)) == 4
        assert child.wait(timeout=10) == -9
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert not cables.folder.exists()


def test_down_asks_kindly_what_another_starts_as_it_ends_too(cables: LabPlan, monkeypatch) -> None:
    signals = []

    def kill(pid: int, number: int) -> None:
        signals.append(number)
        really(pid, number)

    really = os.kill
    monkeypatch.setattr(net.os, "kill", kill)
    restarting = "trap 'sleep 600 & exit' TERM; echo ready; while :; do sleep 0.1; done"
    child = subprocess.Popen(
        [*cables.host("s1").enter(), "bash", "-c", restarting], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline() == b"ready\n"
        take_down(cables.folder)
        assert child.wait(timeout=10) == 0
    finally:
        child.stdout.close()
    assert set(signals) == {signal.SIGTERM}


def test_a_lab_whose_folder_is_lost_goes_by_its_prefix(cables: LabPlan) -> None:
    (cables.folder / "lab.json").unlink()
    with pytest.raises(NotFoundError) as caught:
        take_down(cables.folder)
    assert "--prefix" in caught.value.mend
    assert len(net.namespaces(PREFIX)) == 4, "no other lab is taken for it"
    with pytest.raises(ConflictError, match="namespaces of a lab") as caught:
        Lab(cables).up(lambda line: None)
    assert f"down --prefix {PREFIX}" in caught.value.mend
    assert len(take_down(cables.folder, PREFIX)) == 4
    assert net.namespaces(PREFIX) == []


def test_a_lab_whose_file_was_cut_short_goes_by_its_prefix(cables: LabPlan) -> None:
    (cables.folder / "lab.json").write_bytes(b'{"endpoi')
    assert len(take_down(cables.folder, PREFIX)) == 4
    assert not cables.folder.exists()
    with pytest.raises(NotFoundError):
        take_down(cables.folder, PREFIX)


def test_the_folder_of_another_lab_stays(cables: LabPlan, tmp_path: Path) -> None:
    other = LabPlan(prefix="other", folder=tmp_path / "other", server_count=1, endpoint_count=0)
    other.folder.mkdir()
    (other.folder / "lab.json").write_bytes(canonical.encode(other.value()))
    assert len(take_down(other.folder, PREFIX)) == 4
    assert (other.folder / "lab.json").exists()


def test_a_folder_that_holds_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    plan = LabPlan(prefix=PREFIX, folder=tmp_path, server_count=1, endpoint_count=0)
    with pytest.raises(ConflictError, match="not empty"):
        Lab(plan).up(lambda line: None)
    with pytest.raises(NotFoundError):
        take_down(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
