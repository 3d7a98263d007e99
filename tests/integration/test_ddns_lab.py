"""A server keeps its address at Knot, with a key that it has as a secret for servers."""

from __future__ import annotations

import shutil
import time
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from seipd.lab.mesh import Lab
from services.kernel.errors import UnavailableError
from tests.fakes.knot import NAME, SECRET, ZONE, Knot
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.lab.plan import Host

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("knotd") is None, reason="needs knot"),
]

PORT = 5300


class DynamicLab(Lab):
    """Its servers' settings name a place for their address."""

    @override
    def environment(self, host: Host) -> dict[str, str]:
        return {
            **super().environment(host),
            "SEIPD_DDNS": "rfc2136",
            "SEIPD_DDNS_NAME": NAME,
            "SEIPD_DDNS_ZONE": ZONE,
            "SEIPD_DDNS_SERVER": f"{self.plan.servers[1].address}:{PORT}",
            "SEIPD_DDNS_KEY": "hmac-sha512:hmac-sha512-key",
        }


def until(probe: Callable[[], object], seconds: float = 45.0) -> None:
    begun = time.monotonic()
    while not probe():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.2)


def test_a_wrong_key_is_told_and_the_right_one_puts_the_address_in(tmp_path) -> None:
    with lab_of(2, 0, kind=DynamicLab) as lab:
        lab.prepare()
        lab.start_servers(lambda line: None, server_count=1)
        server, elsewhere = lab.plan.servers
        with Knot(
            tmp_path, PORT, host=elsewhere.address, enter=elsewhere.enter()
        ).running() as knot:
            until(lambda: lab.seipd_json(server, "ddns", "status")["code"] == "no_secret")
            key = tmp_path / "key"
            key.write_bytes(b64encode(b"w" * 32))
            lab.seipd(server, "secret", "set", "ddns", "--file", str(key))
            with pytest.raises(UnavailableError, match="does not take the TSIG key"):
                lab.seipd(server, "ddns", "update")
            assert lab.seipd_json(server, "ddns", "status")["code"] == "ddns_key_refused"
            assert knot.dig(NAME, "A") == []
            key.write_bytes(SECRET)
            lab.seipd(server, "secret", "set", "ddns", "--file", str(key))
            said = lab.seipd_json(server, "ddns", "update")
            assert (said["address"], said["trouble"]) == (server.address, None)
            assert knot.dig(NAME, "A") == [server.address]
