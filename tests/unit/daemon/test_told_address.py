"""Where a server tells the others that it is: an address that they will take, or none."""

from __future__ import annotations

import pytest

from seipd.config.model import Settings
from seipd.daemon.layers.mesh import host_of
from seipd.daemon.network import public_address_of
from services.kernel.errors import ConfigError
from tests.fakes.world import World


@pytest.fixture
def charter():
    return World(2).charter


def told(charter, address: str, bind: str = "192.0.2.9") -> str:
    own = next(iter(charter.servers().values()))
    return host_of(Settings(public_address=address, bind_address=bind), charter, own)


def test_a_server_tells_what_is_configured_or_what_it_listens_on(charter) -> None:
    assert told(charter, "203.0.113.7") == "203.0.113.7"
    assert told(charter, "") == "192.0.2.9"


def test_a_hidden_server_tells_its_backbone_address_and_endpoints_its_own(charter) -> None:
    own = next(iter(charter.servers().values()))
    assert told(charter, "none") == own.backbone
    assert public_address_of("none", "192.0.2.9") == "192.0.2.9"


@pytest.mark.parametrize("address", ["172.16.0.9", "10.64.0.1", "169.254.0.1", "example.org", "::"])
def test_pub_20_what_nobody_would_take_is_refused_at_once_with_a_mend(charter, address) -> None:
    with pytest.raises(ConfigError) as refused:
        told(charter, address)
    assert refused.value.mend == "say --public-address ADDRESS, or none"
