"""Knot takes our TSIG updates, and refuses those by a wrong key, name or clock."""

from __future__ import annotations

import shutil
import time
from base64 import b64encode

import dns.message
import pytest

from services.edge.ddns.rfc2136 import send_update
from services.edge.ddns.target import parse_target
from services.kernel.errors import SeipdError
from tests.fakes.knot import ALGORITHMS, NAME, SECRET, ZONE, Knot
from tests.fakes.pebble import free_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (shutil.which("knotd") and shutil.which("dig")), reason="needs knot, bind9-dnsutils"
    ),
]

WRONG = b64encode(b"w" * 32)


class Asked(Knot):
    """Knot, and updates that are sent to it from here."""

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
    with Asked(tmp_path_factory.mktemp("knot"), free_port()).running() as one:
        yield one


def test_a_wrong_key_is_refused_and_told(knot: Asked) -> None:
    assert knot.refusal(secret=WRONG) == "ddns_key_refused"
    assert knot.refusal(key="nobody") == "ddns_key_refused"
    assert knot.refusal(key="hmac-sha512:hmac-sha256-key") == "ddns_key_refused"


def test_what_the_key_may_not_update_is_told(knot: Asked) -> None:
    # Knot says BADKEY of a key that is good, but not for this.
    assert knot.refusal(name=f"fixed.{ZONE}") == "ddns_key_refused"
    assert knot.dig(f"fixed.{ZONE}", "A") == ["192.0.2.7"]
    assert knot.refusal(zone="other.example", name="s1.other.example") == "bad_message"


def test_a_clock_that_is_off_is_told(knot: Asked, monkeypatch) -> None:
    real = time.time
    monkeypatch.setattr(dns.message.time, "time", lambda: real() - 4000)
    assert knot.refusal() == "ddns_clock"


def test_nobody_there_is_told(knot: Asked) -> None:
    assert knot.refusal(server=f"127.0.0.1:{free_port()}") == "unreachable"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_address_is_put_in_instead_of_the_one_before(knot: Asked, algorithm: str) -> None:
    key = f"{algorithm}:{algorithm}-key"
    knot.update("192.0.2.1", key=key)
    assert knot.dig(NAME, "A") == ["192.0.2.1"]
    knot.update("192.0.2.2", key=key)
    assert knot.dig(NAME, "A") == ["192.0.2.2"]
    knot.update("2001:db8::5", key=key)
    assert (knot.dig(NAME, "A"), knot.dig(NAME, "AAAA")) == ([], ["2001:db8::5"])
