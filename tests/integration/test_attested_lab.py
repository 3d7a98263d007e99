"""A mesh that demands TPMs: a real quote promotes, a changed register demotes, each told why."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from seipd.lab import net
from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan
from services.base.crypto.signatures import generate_signing_key
from services.base.release.installed import measure, this_installation
from services.base.release.manifest import parse_version, sign_manifest
from services.kernel.ids import b64u_encode
from services.runtime.clock import SystemClock
from tests.fakes.swtpm import missing_programs, software_tpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.plan import Host
    from services.base.crypto.signatures import SigningKey
    from tests.fakes.swtpm import SoftwareTpm

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing_programs()), reason=f"missing: {missing_programs()}"),
]

FOUNDING = (
    *("--attestation", "tpm2", "--tier1-checks", "8"),
    *("--parameter", "tier1_uptime_permille=500"),
)
GOOD = "11" * 32


class AttestedLab(Lab):
    """Each server has a TPM, quotes are renewed every few seconds, and one release is approved."""

    def __init__(self, plan: LabPlan, folder: Path) -> None:
        super().__init__(plan)
        self.folder = folder
        self.tpms: dict[str, SoftwareTpm] = {}
        self.release_key = generate_signing_key()
        self.manifest = folder / "manifest.json"
        self.manifest.write_bytes(manifest_of_this_tree(self.release_key))

    def environment(self, host: Host) -> dict[str, str]:
        return super().environment(host) | {
            "SEIPD_GOSSIP_INTERVAL_S": "0.5",
            "SEIPD_ATTESTATION_INTERVAL_S": "5",
            "SEIPD_TPM_TCTI": self.tpms[host.name].tcti,
            "SEIPD_TPM_PCRS": "0,7",
            "SEIPD_RELEASE_KEYS": b64u_encode(self.release_key.public_key),
        }

    def start_server(self, host: Host) -> None:
        super().start_server(host)
        if host == self.plan.servers[0]:
            self.seipd(host, "release", "import", str(self.manifest))


def manifest_of_this_tree(key: SigningKey) -> bytes:
    """Approve of what the servers of the lab run, which is no release that a person would sign."""
    found = measure(this_installation())
    now_ms = SystemClock().now_ms()
    return sign_manifest(
        key,
        version=parse_version(found.version),
        platform=found.platform,
        python=found.python,
        measurements=(found.digest,),
        minimum_version=parse_version("0.0.0"),
        issued_ms=now_ms,
        expires_ms=now_ms + 86_400_000,
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttestedLab]:
    """The first server runs, alone; the hardware of its host is enrolled."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"q{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=3, endpoint_count=1
    )
    folder = tmp_path_factory.mktemp("attested")
    built = AttestedLab(plan, folder)
    with ExitStack() as stack:
        stack.callback(lambda: net.namespaces(prefix) == [] or pytest.fail("a lab is left"))
        stack.callback(built.down)
        built.prepare()
        for host in plan.servers:
            tpm = stack.enter_context(software_tpm(folder / host.name, enter=host.enter()))
            tpm.extend(7, GOOD)
            built.tpms[host.name] = tpm
        built.start_servers(lambda line: None, server_count=1, founding=FOUNDING)
        yield built


def until(probe: Callable[[], object], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.5)
    return bool(probe())


def tiers(lab: Lab, host: Host) -> dict[str, int]:
    return {one["server_id"]: one["tier"] for one in lab.seipd_json(host, "servers")}


def peer(lab: Lab, host: Host, server_id: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.seipd_json(host, "trust", "peer", server_id)
    return found


def attestation(lab: Lab, host: Host, server_id: str) -> tuple[str, str]:
    """Return how the check went and its code; empty where nobody looked yet."""
    checks = {one["check"]: one for one in peer(lab, host, server_id)["checks"]}
    found = checks.get("attestation", {"outcome": "", "code": ""})
    return found["outcome"], found["code"]


def device_file(lab: AttestedLab, host: Host, **changes: Any) -> Path:
    """Take a host's own words on its TPM to a file, as an operator carries them over."""
    file = lab.folder / f"{host.name}.json"
    file.write_text(json.dumps(lab.seipd_json(host, "attestation", "key") | changes))
    return file


def id_of(lab: Lab, host: Host) -> str:
    found: str = lab.status(host)["server_id"]
    return found


def join(lab: AttestedLab, host: Host) -> str:
    token = lab.invite(lab.plan.servers[0], "server")
    lab.seipd(host, "join", token, *lab.address_flags(host))
    lab.start_server(host)
    return id_of(lab, host)


def test_a_server_is_promoted_by_a_real_quote_and_demoted_when_its_register_changes(
    lab: AttestedLab,
) -> None:
    first, second, third = lab.plan.servers
    founder = id_of(lab, first)
    enroll = ("attestation", "enroll")
    lab.seipd(first, *enroll, founder, str(device_file(lab, first)), "--pcr", "7")
    assert tiers(lab, first) == {founder: 1}

    # A TPM that nobody enrolled vouches for nobody, and it is told and written down.
    server = join(lab, second)
    assert until(lambda: attestation(lab, first, server)[1] == "quote_not_enrolled")
    assert until(lambda: attestation(lab, first, server)[0] == "lost")
    assert tiers(lab, first)[server] == 2

    file = device_file(lab, second)
    lab.seipd(first, *enroll, server, str(file), "--pcr", "7")
    assert until(lambda: tiers(lab, first)[server] == 1), peer(lab, first, server)
    assert attestation(lab, first, server) == ("good", "attested")
    assert until(lambda: lab.status(second)["tier"] == 1)
    assert until(lambda: tiers(lab, second) == {founder: 1, server: 1})

    # The key of another machine's TPM, though it is a good one, is not this server's.
    other = join(lab, third)
    wrong = device_file(lab, second, server=other)
    for host in (first, second):
        lab.seipd(host, *enroll, other, str(wrong))
    assert until(lambda: attestation(lab, first, other) == ("lost", "quote_key_not_certified"))
    assert tiers(lab, first)[other] == 2

    # Now three are witnesses: two of them have to see that the second one's register is another.
    for host in (first, third):
        assert until(lambda host=host: attestation(lab, host, server) == ("good", "attested"))
    lab.tpms[second.name].extend(7, "ab" * 32)
    for host in (first, third):
        assert until(lambda host=host: tiers(lab, host)[server] == 2), peer(lab, host, server)
    assert until(lambda: lab.status(second)["tier"] == 2)
    told = peer(lab, first, server)
    assert (told["state"], told["tier"]) == ("trusted", 2)
    assert attestation(lab, first, server) == ("lost", "quote_registers")
    said = {name: (one["tier"], one["reasons"]) for name, one in told["verdicts"].items()}
    assert said[founder] == said[other] == (2, ["quote_registers"])
    assert tiers(lab, first)[founder] == 1

    refused = lab.seipd_json(first, "attestation", "refused", "--limit", "1000")
    codes = {(one["server_id"], one["code"]) for one in refused}
    assert codes >= {
        (server, "quote_not_enrolled"),
        (other, "quote_key_not_certified"),
        (server, "quote_registers"),
    }

    # What it measures now is made good by those who may: the first alone is in tier 1.
    lab.seipd(first, *enroll, server, str(device_file(lab, second)), "--pcr", "7")
    for host in lab.plan.servers:
        assert until(lambda host=host: tiers(lab, host)[server] == 1), peer(lab, host, server)

    # The third one's own TPM proves its key over the wire; two are in tier 1, and both say so.
    makers = lab.folder / "makers.pem"
    authority = lab.tpms[third.name].authority
    makers.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in authority))
    words = ("attestation", "certify", other, str(makers), "--pcr", "7")
    said = lab.seipd_json(first, *words)
    (entry,) = (one["id"] for one in said["entries"] if one["held_by"] == [founder])
    assert said["in_force"] != entry
    assert until(lambda: entry in str(lab.seipd_json(second, "attestation", "show", other)))
    lab.seipd(second, "attestation", "approve", other, entry[:12])
    for host in lab.plan.servers:
        assert until(lambda host=host: set(tiers(lab, host).values()) == {1}), peer(
            lab, host, other
        )
    assert until(lambda: "tpm2 vouches for it" in lab.seipd(second, "trust", "peer", other))
