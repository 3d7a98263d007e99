"""Knot takes our TSIG updates, and refuses those by a wrong key, name or clock."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from base64 import b64encode

import dns.message
import pytest

from services.edge.ddns.rfc2136 import send_update
from services.edge.ddns.target import parse_target
from services.kernel.errors import SeipdError
from tests.fakes.pebble import free_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (shutil.which("knotd") and shutil.which("dig")), reason="needs knot, bind9-dnsutils"
    ),
]

ZONE = "dyn.example"
NAME = f"s1.{ZONE}"
SECRET = b64encode(b"k" * 32)
WRONG = b64encode(b"w" * 32)
ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512")


class Knot:
    """A name server with one zone, which keys of three kinds may update."""

    def __init__(self, folder) -> None:
        self.port = free_port()
        self._folder = folder

    @contextlib.contextmanager
    def running(self):
        (self._folder / "db").mkdir()
        config = self._folder / "knot.conf"
        config.write_text(self._config())
        (self._folder / f"{ZONE}.zone").write_text(
            f"{ZONE}. 60 SOA ns.{ZONE}. h.{ZONE}. 1 60 60 60 60\n{ZONE}. 60 NS ns.{ZONE}.\n"
            f"ns.{ZONE}. 60 A 127.0.0.1\nfixed.{ZONE}. 60 A 192.0.2.7\n"
        )
        with (self._folder / "knot.log").open("wb") as log:
            process = subprocess.Popen(["knotd", "-c", str(config)], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 20
            while self.dig(ZONE, "SOA") == []:
                assert process.poll() is None, (self._folder / "knot.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield self
        finally:
            process.terminate()
            process.wait(10)

    def _config(self) -> str:
        keys = "".join(
            f"  - id: {one}-key\n    algorithm: {one}\n    secret: {SECRET.decode()}\n"
            for one in ALGORITHMS
        )
        names = ", ".join(f"{one}-key" for one in ALGORITHMS)
        return (
            f"server:\n  listen: 127.0.0.1@{self.port}\n  rundir: {self._folder}\n"
            f"database:\n  storage: {self._folder}/db\n"
            f"key:\n{keys}"
            f"acl:\n  - id: ours\n    key: [{names}]\n    action: update\n"
            "    update-owner: name\n    update-owner-match: sub-or-equal\n"
            f"    update-owner-name: [s1]\n"
            f"zone:\n  - domain: {ZONE}\n    storage: {self._folder}\n"
            f"    file: {ZONE}.zone\n    acl: ours\n    zonefile-sync: -1\n"
        )

    def dig(self, name: str, rtype: str) -> list[str]:
        words = ["dig", "+short", "+time=1", "+tries=1", "-p", str(self.port), "@127.0.0.1"]
        done = subprocess.run([*words, name, rtype], capture_output=True, text=True, check=False)
        return [one for one in done.stdout.splitlines() if not one.startswith(";")]

    def update(self, address: str, *, secret: bytes = SECRET, **changes) -> None:
        fields = {
            "name": NAME,
            "zone": ZONE,
            "server": f"127.0.0.1:{self.port}",
            "key": "hmac-sha256:hmac-sha256-key",
            "secret": "",
        } | changes
        target = parse_target("rfc2136", **fields)
        assert target is not None
        send_update(target, address, secret)

    def refusal(self, **changes) -> str:
        with pytest.raises(SeipdError) as caught:
            self.update("192.0.2.99", **changes)
        assert self.dig(NAME, "A") == []
        assert SECRET.decode() not in str(caught.value)
        return caught.value.code


@pytest.fixture(scope="module")
def knot(tmp_path_factory):
    with Knot(tmp_path_factory.mktemp("knot")).running() as one:
        yield one


def test_a_wrong_key_is_refused_and_told(knot: Knot) -> None:
    assert knot.refusal(secret=WRONG) == "ddns_key_refused"
    assert knot.refusal(key="nobody") == "ddns_key_refused"
    assert knot.refusal(key="hmac-sha512:hmac-sha256-key") == "ddns_key_refused"


def test_what_the_key_may_not_update_is_told(knot: Knot) -> None:
    # Knot says BADKEY of a key that is good, but not for this.
    assert knot.refusal(name=f"fixed.{ZONE}") == "ddns_key_refused"
    assert knot.dig(f"fixed.{ZONE}", "A") == ["192.0.2.7"]
    assert knot.refusal(zone="other.example", name="s1.other.example") == "bad_message"


def test_a_clock_that_is_off_is_told(knot: Knot, monkeypatch) -> None:
    real = time.time
    monkeypatch.setattr(dns.message.time, "time", lambda: real() - 4000)
    assert knot.refusal() == "ddns_clock"


def test_nobody_there_is_told(knot: Knot) -> None:
    assert knot.refusal(server=f"127.0.0.1:{free_port()}") == "unreachable"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_address_is_put_in_instead_of_the_one_before(knot: Knot, algorithm: str) -> None:
    key = f"{algorithm}:{algorithm}-key"
    knot.update("192.0.2.1", key=key)
    assert knot.dig(NAME, "A") == ["192.0.2.1"]
    knot.update("192.0.2.2", key=key)
    assert knot.dig(NAME, "A") == ["192.0.2.2"]
    knot.update("2001:db8::5", key=key)
    assert (knot.dig(NAME, "A"), knot.dig(NAME, "AAAA")) == ([], ["2001:db8::5"])
