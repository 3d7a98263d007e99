"""From the domain alone to each healthy server: regions, their servers, and what a server says."""

from __future__ import annotations

import pytest

from services.edge.dns.servernames import (
    MAX_LISTED,
    ServerFacts,
    config_text,
    load_tenths,
    shared_content,
)
from services.edge.dns.wire import Type
from services.kernel.dnsnames import name_of, text_of

DOMAIN = "mesh.example"


def server(number: int, region: str = "eu-west", *, load_percent: int = 0, **more) -> ServerFacts:
    return ServerFacts(
        server_id=f"server-{number:016x}",
        region=region,
        host=more.get("host", f"198.51.100.{number % 250}"),
        is_healthy=more.get("is_healthy", True),
        tunnel=("10.64.0.2", "fd00::2"),
        backbone=("172.16.0.10", "fd00::10"),
        ports={"http": 9100},
        load_percent=load_percent,
    )


def pointed(content, name: str) -> list[str]:
    (one,) = content[name_of(name)]
    assert one.rtype == Type.PTR
    return [text_of(rdata) for rdata in one.rdatas]


def test_the_domain_leads_to_regions_and_they_to_their_healthy_servers() -> None:
    servers = [
        server(1),
        server(2),
        server(3, is_healthy=False),
        server(4, host=None),
        server(5, "us-east"),
        server(6, "ap-east", is_healthy=False),
    ]
    content = shared_content(servers, {}, DOMAIN)
    assert pointed(content, f"_config.seip.{DOMAIN}") == [
        f"_config.eu-west.seip.{DOMAIN}",
        f"_config.us-east.seip.{DOMAIN}",
    ]
    assert pointed(content, f"_config.eu-west.seip.{DOMAIN}") == [
        f"_config.server-{number:016x}.eu-west.seip.{DOMAIN}" for number in (1, 2)
    ]
    assert name_of(f"_config.ap-east.seip.{DOMAIN}") not in content


def test_a_large_region_lists_as_many_as_anybody_looks_at() -> None:
    content = shared_content([server(number) for number in range(200)], {}, DOMAIN)
    assert len(pointed(content, f"_config.eu-west.seip.{DOMAIN}")) == MAX_LISTED


@pytest.mark.parametrize(
    ("percent", "tenths"), [(0, 0), (4, 0), (12, 1), (50, 5), (99, 10), (340, 10)]
)
def test_the_load_is_told_in_tenths(percent: int, tenths: int) -> None:
    one = server(1, load_percent=percent)
    assert load_tenths(one) == tenths
    assert f" load={tenths} " in config_text(one, "name")
