"""A mesh of one server loses its root; the operator's recovery file brings a new one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from seipd.lab import net
from seipd.lab.plan import LabPlan
from seipd.signerd.recovery import FILE_KIND
from services.kernel import canonical
from tests.integration.voting_lab import VotingLab

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory):
    """One server, and the recovery file that its operator carried away."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"w{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=2, endpoint_count=1
    )
    lab = VotingLab(plan)
    try:
        lab.prepare()
        lab.start_servers(lambda line: None, server_count=1)
        first = plan.servers[0]
        made = first.data_root.with_name(f"{first.data_root.name}-signer") / "recovery-1.key"
        carried = tmp_path_factory.mktemp("safe") / "recovery.key"
        shutil.move(made, carried)
        os.chown(carried, 0, 0)
        yield lab, carried
    finally:
        lab.down()
        assert net.namespaces(prefix) == []


def test_rkc_16_the_file_is_for_its_owner_alone_and_brings_a_new_root(one) -> None:
    lab, carried = one
    first, second = lab.plan.servers
    assert carried.stat().st_mode & 0o777 == 0o600
    assert canonical.decode(carried.read_bytes())["kind"] == FILE_KIND
    found = lab.seipd_json(first, "root", "shares")
    assert (found["in_force"]["offline"], found["named"]) == (True, True)

    here = lab.run(first, "root", "recover", "--file", str(carried))
    assert here.returncode == 6, here.stderr
    assert "seipd root rotate" in here.stderr

    lab.lose_root(first)
    other = carried.with_name("other.key")
    other.write_bytes(b'{"kind":"other"}')
    other.chmod(0o600)
    refused = lab.run(first, "root", "recover", "--file", str(other))
    assert refused.returncode == 2, refused.stderr
    assert lab.generation(first) == 1

    done = lab.run(first, "root", "recover", "--file", str(carried), "--json")
    assert done.returncode == 0, done.stderr
    assert canonical.decode(done.stdout.encode())["generation"] == 2
    assert lab.generation(first) == 2
    token = lab.invite(first, "server")
    lab.seipd(second, "join", token, *lab.address_flags(second))
    lab.start_server(second)
    assert lab.generation(second) == 2
    secret = canonical.decode(carried.read_bytes())["seed"]
    for host in (first, second):
        assert secret not in host.log.read_text(encoding="utf-8", errors="replace")
