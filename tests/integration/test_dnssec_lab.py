"""Name servers sign the mesh's zone: delv validates from what ``seipd dns ds`` prints."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DOMAIN = "mesh.internal"
OUTSIDE = "s3"


@pytest.fixture(scope="module")
def lab():
    """Two servers, and a host on which nothing runs: s3."""
    with lab_of(3, 0) as built:
        built.prepare()
        built.start_servers(lambda line: None, server_count=2)
        until(lambda: key_count(built) == 2)
        yield built


def until(probe: Callable[[], object], seconds: float = 60.0) -> None:
    begun = time.monotonic()
    while not probe():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.3)


def dig(lab: Lab, server: str, name: str, rtype: str) -> list[str]:
    host = lab.plan.host(OUTSIDE)
    words = ["dig", "+short", "+tries=2", "+time=2", f"@{server}", name, rtype]
    done = subprocess.run(
        [*host.enter(), *words], capture_output=True, text=True, check=False, timeout=20
    )
    return [line for line in done.stdout.splitlines() if not line.startswith(";")]


def key_count(lab: Lab) -> int:
    """Return how many zone keys all servers that run tell of, where they tell the same."""
    told = {tuple(sorted(dig(lab, one.address, DOMAIN, "DNSKEY"))) for one in lab.plan.servers[:2]}
    return sum(key.startswith("256 3 15 ") for key in next(iter(told))) if len(told) == 1 else 0


def ds(lab: Lab, server: int) -> str:
    line: str = lab.seipd(lab.plan.servers[server], "dns", "ds").strip()
    return line


def delv(lab: Lab, server: str, name: str, rtype: str, ds_line: str) -> str:
    host = lab.plan.host(OUTSIDE)
    owner, _, _, _, tag, algorithm, digest_type, digest = ds_line.split()
    anchor = lab.plan.folder / "anchor"
    anchor.write_text(
        f'trust-anchors {{ {owner} static-ds {tag} {algorithm} {digest_type} "{digest}"; }};\n'
    )
    words = ["delv", f"@{server}", "-a", str(anchor), f"+root={DOMAIN}", name, rtype]
    done = subprocess.run(
        [*host.enter(), *words], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout + done.stderr


def test_delv_validates_what_every_server_says_from_the_ds_that_is_printed(lab: Lab) -> None:
    line = ds(lab, 0)
    assert ds(lab, 1) == line
    for server in lab.plan.servers[:2]:
        for name, rtype, wanted in (
            (f"eu-central.seip.{DOMAIN}", "A", server.address),
            (DOMAIN, "SOA", f"ns1.{DOMAIN}"),
            (DOMAIN, "DNSKEY", "257 3 15"),
            (DOMAIN, "CAA", "letsencrypt.org"),
        ):
            output = delv(lab, server.address, name, rtype, line)
            assert "; fully validated" in output, output
            assert wanted in output
        for name, rtype in ((f"nope.{DOMAIN}", "A"), (f"seip.{DOMAIN}", "TXT")):
            output = delv(lab, server.address, name, rtype, line)
            assert "; negative response, fully validated" in output, output


def test_what_an_operator_sets_is_signed_at_once(lab: Lab) -> None:
    first = lab.plan.servers[0]
    lab.seipd(first, "dns", "set", "www", "TXT", "hello")
    output = delv(lab, first.address, f"www.{DOMAIN}", "TXT", ds(lab, 0))
    assert "; fully validated" in output
    assert "hello" in output


def test_a_server_that_is_revoked_signs_no_more(lab: Lab) -> None:
    first, second = lab.plan.servers[:2]
    before = ds(lab, 0)
    lab.seipd(first, "server", "revoke", lab.status(second)["server_id"], "--yes")
    until(lambda: len(dig(lab, first.address, DOMAIN, "DNSKEY")) == 2)
    assert ds(lab, 0) == before
    assert "; fully validated" in delv(lab, first.address, DOMAIN, "SOA", before)
