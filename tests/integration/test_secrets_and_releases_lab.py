"""Two servers, one of which earns tier 1: it gets the secrets then; an ended release ends that.

What runs is judged on both by a manifest that one of them took.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seipd.lab import net
from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan
from services.authority.serversecrets.messages import Meant
from services.authority.serversecrets.store import SecretStore
from services.base.crypto.signatures import SigningKey
from services.base.keywrap.identity import load_identity
from services.base.release.manifest import sign_manifest
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

RELEASE_KEY = SigningKey(b"\x2a" * 32)
FOUNDING = ("--new-servers", "tier2", "--tier1-checks", "60")
VALUE = b"dns-token-5c1f00d5"
NEWER = b"dns-token-0ddba11"


class TrustingLab(Lab):
    """Its servers ask each other twice as often, and believe one release key."""

    def environment(self, host):
        return super().environment(host) | {
            "SEIPD_GOSSIP_INTERVAL_S": "0.5",
            "SEIPD_RELEASE_KEYS": b64u_encode(RELEASE_KEY.public_key),
        }

    def given(self, host: Host, *words: str, value: bytes = b"") -> subprocess.CompletedProcess:
        """Run ``seipd`` with something on its standard input."""
        return subprocess.run(
            [*host.enter(), *self._program("seipd", host), *words],
            input=value,
            capture_output=True,
            timeout=120,
            check=False,
            env=self.environment(host),
        )


@pytest.fixture(scope="module")
def two():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"x{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=2, endpoint_count=1
    )
    built = TrustingLab(plan)
    try:
        built.prepare()
        built.start_servers(lambda line: None, founding=FOUNDING)
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []


def until(probe: Callable[[], object], seconds: float = 180.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.5)
    return bool(probe())


def rows(lab: Lab, host: Host) -> dict[str, dict[str, Any]]:
    return {one["server_id"]: one for one in lab.seipd_json(host, "servers")}


def release_check(lab: Lab, host: Host, server_id: str) -> tuple[str, str]:
    found = lab.seipd_json(host, "trust", "peer", server_id)
    return next(
        ((one["outcome"], one["code"]) for one in found["checks"] if one["check"] == "release"),
        ("", ""),
    )


def is_here(lab: Lab, host: Host, version: int) -> bool:
    found = lab.seipd_json(host, "secret", "ls")
    return [(one["version"], one["here"]) for one in found] == [(version, True)]


def read(lab: Lab, host: Host) -> bytes:
    """Return the one secret in a server's folder, opened by what the unlock file opens."""
    root = host.data_root
    unlock = root.with_name(f"{root.name}.unlock").read_bytes().strip()
    identity = load_identity(root / "identity", unlock=unlock)
    mesh_id = lab.status(host)["mesh_id"]
    store = SecretStore(folder=root / "secrets", seed=identity.signing_key.seed, mesh_id=mesh_id)
    (path,) = (root / "secrets").glob("*.enc")
    version = lab.seipd_json(host, "secret", "ls")[0]["version"]
    secret = store.get(Meant(name="dns", version=version, commitment=bytes.fromhex(path.stem)))
    return secret.value if secret is not None else b""


def files_with(folder: Path, texts: tuple[bytes, ...]) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if any(text in _held_by(path) for text in texts)]


def _held_by(path: Path) -> bytes:
    """Return what a file holds; a daemon that runs beside may have replaced it meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def import_manifest(lab: Lab, host: Host, file: Path, **changes: object) -> None:
    running = lab.seipd_json(host, "servers")[0]["release"]
    now_ms = int(time.time() * 1000)
    fields: dict[str, Any] = {
        "version": tuple(int(part) for part in running["version"].split(".")),
        "platform": running["platform"],
        "python": running["python"],
        "measurements": (running["measurement"],),
        "minimum_version": (0, 0, 0),
        "issued_ms": now_ms - 1000,
        "expires_ms": now_ms + 3_600_000,
    }
    file.write_bytes(sign_manifest(RELEASE_KEY, **(fields | changes)))
    lab.seipd(host, "release", "import", str(file))


def test_a_secret_goes_to_tier_1_alone_and_a_removed_one_is_gone(two: TrustingLab) -> None:
    first, second = two.plan.servers
    ids = {host.name: two.status(host)["server_id"] for host in two.plan.servers}
    set_ = two.given(first, "secret", "set", "dns", value=VALUE + b"\n")
    assert set_.returncode == 0, set_.stderr
    assert is_here(two, first, 1)
    assert read(two, first) == VALUE

    assert rows(two, first)[ids[second.name]]["tier"] == 2
    assert until(lambda: two.seipd_json(second, "secret", "ls"))
    refused = two.given(second, "secret", "set", "dns", value=b"another")
    assert refused.returncode == 4
    assert b"not in tier 1" in refused.stderr
    if rows(two, second)[ids[second.name]]["tier"] == 2:
        assert not is_here(two, second, 1)
        assert not list(second.data_root.glob("secrets/*.enc"))

    assert until(lambda: rows(two, second)[ids[second.name]]["tier"] == 1)
    assert until(lambda: is_here(two, second, 1))
    assert read(two, second) == VALUE
    told = two.seipd_json(first, "secret", "audit")
    assert (told[-1]["server_id"], told[-1]["outcome"]) == (ids[second.name], "granted")

    assert two.given(second, "secret", "set", "dns", value=NEWER).returncode == 0
    assert until(lambda: is_here(two, first, 2))
    assert read(two, first) == read(two, second) == NEWER
    said = two.given(first, "secret", "set", "dns", VALUE.decode())
    assert said.returncode != 0
    assert VALUE not in said.stderr + said.stdout
    for host in two.plan.servers:
        texts = tuple(
            text
            for value in (VALUE, NEWER)
            for text in (value, b64u_encode(value).encode(), value.hex().encode())
        )
        assert files_with(host.data_root.parent, texts) == []

    assert two.given(second, "secret", "rm", "dns").returncode == 0
    for host in two.plan.servers:
        assert until(lambda host=host: two.seipd_json(host, "secret", "ls") == [])
        assert until(lambda host=host: not list(host.data_root.glob("secrets/*.enc")))


def test_what_servers_run_is_told_judged_everywhere_and_ended_by_a_minimum_version(
    two: TrustingLab, tmp_path: Path
) -> None:
    first, second = two.plan.servers
    ids = {host.name: two.status(host)["server_id"] for host in two.plan.servers}
    for host in two.plan.servers:
        assert until(lambda host=host: all(one["release"] for one in rows(two, host).values()))
        told = [one["release"] for one in rows(two, host).values()]
        assert told[0] == told[1]
        assert (told[0]["approved"], told[0]["code"]) == (None, None)

    import_manifest(two, first, tmp_path / "good.json")
    for host, other in ((first, second), (second, first)):
        assert until(
            lambda host=host: all(one["release"]["approved"] for one in rows(two, host).values())
        )
        assert until(
            lambda host=host, other=other: (
                release_check(two, host, ids[other.name]) == ("good", "approved")
            )
        )
    assert two.seipd_json(second, "release", "show")["running"]["approved"]

    import_manifest(
        two,
        first,
        tmp_path / "ended.json",
        version=(9, 0, 0),
        minimum_version=(9, 0, 0),
        measurements=("ab" * 32,),
    )
    assert until(
        lambda: release_check(two, first, ids[second.name]) == ("failed", "release_below_minimum")
    )
    assert until(lambda: {one["tier"] for one in rows(two, first).values()} == {2})
    found = two.given(second, "release", "import", str(tmp_path / "good.json"))
    assert found.returncode != 0 or b"known already" in found.stdout
    refused = two.given(first, "secret", "set", "dns", value=VALUE)
    assert refused.returncode == 4
