"""kill -9 as soon as a rotation was heard, and an old disk put back: no older root comes in by it.

And of the same lab the signer's audit, as the daemon keeps it.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seipd.client.local import ask
from seipd.config.model import Settings
from seipd.lab import net
from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan
from services.kernel.errors import SeipdError
from tests.fakes.auditors import auditor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(600)]


class TwoServers(Lab):
    """The first has the root; to the second bad things happen."""

    def ask(self, host: Host, path: str) -> Any:
        return ask(Settings(data_root=host.data_root), "GET", path)

    def generation(self, host: Host) -> int:
        """Return how far the chain goes on a server; 0 where it does not answer."""
        try:
            return len(self.ask(host, "/api/root/chain")["chain"])
        except SeipdError:
            return 0

    def troubles(self, host: Host) -> str:
        """Return what the services of a server complain of."""
        try:
            services = self.ask(host, "/api/status")["services"]
        except SeipdError:
            return ""
        return " ".join(one["detail"] or "" for one in services if one["state"] != "ok")

    def kill(self, host: Host) -> None:
        pid = self.daemon_pid(host)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: self.daemon_pid(host) is None)


@pytest.fixture(scope="module")
def lab() -> Iterator[TwoServers]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"w{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=2, endpoint_count=0
    )
    built = TwoServers(plan)
    try:
        built.prepare()
        built.start_servers(lambda line: None)
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []


def until(probe: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.01)
    return bool(probe())


def put_back(old: Path, new: Path) -> None:
    """Have in one place what lies in another, and nothing else."""
    shutil.rmtree(new, ignore_errors=True)
    if old.is_dir():
        shutil.copytree(old, new)
    else:
        shutil.copy2(old, new)


def test_rkc_04_what_was_heard_outlives_a_kill_and_an_old_disk_is_noticed(lab, tmp_path) -> None:
    first, second = lab.plan.servers
    chain_file = second.data_root / "identity" / "root_chain.json"
    ledger = second.data_root / "ledger"
    lab.stop_server(second)
    for path in (chain_file, ledger):
        put_back(path, tmp_path / path.name)
    lab.start_server(second)
    assert lab.generation(second) == 1

    lab.seipd(first, "root", "rotate", "--overlap", "10s")
    assert until(lambda: lab.generation(second) == 2)
    lab.kill(second)
    mesh_id = lab.status(first)["mesh_id"]
    status, told = auditor("chain", chain_file, "--root", mesh_id)
    assert (status, told.get("generation")) == (0, 2), told

    # Its feeds are put back as they were, and nobody is there to tell it: it knows all the same.
    lab.stop_server(first)
    put_back(tmp_path / "ledger", ledger)
    lab.launch_server(second)
    assert until(lambda: lab.generation(second) == 2)
    lab.kill(second)

    # Now the chain is put back, too: it says so, and writes nothing by the older key.
    put_back(tmp_path / "ledger", ledger)
    put_back(tmp_path / "root_chain.json", chain_file)
    lab.launch_server(second)
    assert until(lambda: "ROLLBACK_DETECTED" in lab.troubles(second))
    refused = lab._run("seipd", second, "invite", "endpoint")
    assert refused.returncode == 7, refused.stderr

    lab.start_server(first)
    assert until(lambda: lab.generation(second) == 2)
    assert until(lambda: "ROLLBACK_DETECTED" not in lab.troubles(second))
    assert until(lambda: lab._run("seipd", second, "invite", "endpoint").returncode == 0)


def test_the_audit_of_the_signer_is_shown_and_verified_with_no_daemon(lab) -> None:
    first, second = lab.plan.servers
    shown = lab.seipd_json(first, "ledger", "audit")
    calls = [(one["call"], one["key_id"], one["outcome"]) for one in shown["entries"]]
    assert ("sign", "root-1", "granted") in calls
    assert ("rotate", "root-2", "granted") in calls
    assert ("sign", "root-2", "granted") in calls
    assert shown["behind"] == ""
    for one in shown["logs"]:
        folder = (first.data_root / one["path"]).parent
        status, told = auditor("audit", folder, "--key", one["vkey"])
        assert (status, told.get("good")) == (0, True), told
    assert "root-2" in lab.seipd(first, "ledger", "audit", "--since", "1h")
    verified = lab.seipd(first, "ledger", "verify")
    assert f"good: {shown['logs'][0]['path']}" in verified
    assert lab._run("seipd", second, "ledger", "audit").returncode == 5


def test_what_the_audit_came_to_is_known_to_the_other_server(lab, tmp_path) -> None:
    first, second = lab.plan.servers
    own = lab.seipd_json(first, "status")["server_id"]

    def anchored() -> list[dict]:
        told = lab.seipd_json(second, "ledger", "audit", "--anchors")["anchors"]
        return [one for one in told if one["server_id"] == own]

    assert until(anchored)
    file = tmp_path / "anchors.json"
    file.write_text(lab.seipd(second, "ledger", "audit", "--anchors", "--json"))
    log = lab.seipd_json(first, "ledger", "audit")["logs"][-1]
    folder = (first.data_root / log["path"]).parent
    status, told = auditor("audit", folder, "--key", log["vkey"], "--anchors", file)
    assert (status, told.get("good")) == (0, True), told
    assert told["anchored"].endswith(log["path"][-7:])


def test_a_signer_whose_audit_was_put_back_is_noticed(lab) -> None:
    first = lab.plan.servers[0]
    audit = first.data_root.with_name("data-signer") / "audit"
    before = lab.seipd_json(first, "ledger", "audit")["entries"]
    lab.stop_server(first)
    owner = audit.stat()
    shutil.rmtree(audit)
    audit.mkdir(mode=0o700)
    os.chown(audit, owner.st_uid, owner.st_gid)
    lab.launch_server(first)
    assert until(lambda: "AUDIT_ROLLED_BACK" in lab.troubles(first))
    after = lab.seipd_json(first, "ledger", "audit")
    assert "AUDIT_ROLLED_BACK" in after["behind"]
    assert after["entries"][: len(before)] == before


def test_a_signer_and_a_copy_that_were_both_put_back_contradict_the_feed(lab) -> None:
    first = lab.plan.servers[0]
    lab.stop_server(first)
    shutil.rmtree(first.data_root / "ledger" / "audit")
    lab.launch_server(first)
    assert until(lambda: "anchored by record" in lab.troubles(first))
