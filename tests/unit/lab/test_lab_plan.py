"""What a lab consists of, before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from seipd.lab.plan import (
    MAX_ENDPOINTS,
    MAX_SERVERS,
    LabPlan,
    is_socket_of,
    partition_rules,
    plan_from_value,
)
from services.kernel.errors import InputError, NotFoundError

FOLDER = Path("/run/some-lab")


def plan(*, prefix: str = "lab", servers: int = 2, endpoints: int = 3) -> LabPlan:
    return LabPlan(prefix=prefix, folder=FOLDER, server_count=servers, endpoint_count=endpoints)


def test_the_largest_lab_has_no_two_hosts_of_one_name_or_address() -> None:
    hosts = plan(prefix="eightltr", servers=MAX_SERVERS, endpoints=MAX_ENDPOINTS).hosts
    for what in ("name", "namespace", "address", "interface", "data_root", "log"):
        assert len({getattr(host, what) for host in hosts}) == len(hosts) == 192
    assert max(len(host.interface) for host in hosts) <= 15, "the kernel's limit"
    assert max(int(host.address.rsplit(".", 1)[1]) for host in hosts) <= 254


def test_endpoints_join_the_servers_in_turn() -> None:
    made = plan(servers=2, endpoints=3)
    assert [made.server_of(number).name for number in range(3)] == ["s1", "s2", "s1"]


def test_a_host_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NotFoundError, match="no host s9") as caught:
        plan(servers=1, endpoints=1).host("s9")
    assert caught.value.mend == "it has s1, e1"


@pytest.mark.parametrize(
    "sizes",
    [
        {"servers": 0},
        {"servers": MAX_SERVERS + 1},
        {"endpoints": -1},
        {"endpoints": MAX_ENDPOINTS + 1},
        {"prefix": ""},
        {"prefix": "ninechars"},
        {"prefix": "a-b"},
        {"prefix": "ä"},
        {"prefix": "a\n"},
    ],
)
def test_what_can_not_be_built_is_refused(sizes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        plan(**sizes)


def test_the_file_of_a_lab_gives_its_plan_back() -> None:
    assert plan_from_value(plan().value(), FOLDER) == plan()


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"prefix": "lab", "servers": 2},
        {"prefix": "lab", "servers": "2", "endpoints": 1},
        {"prefix": 7, "servers": 2, "endpoints": 1},
    ],
)
def test_a_damaged_file_is_an_input_error(value: dict[str, object]) -> None:
    with pytest.raises(InputError):
        plan_from_value(value, FOLDER)


def test_a_lab_knows_its_own_control_sockets_from_those_of_others() -> None:
    own = [f"{host.interface}.sock" for host in plan(prefix="t1").hosts]
    assert all(is_socket_of("t1", name) for name in own)
    others = [f"{host.interface}.sock" for host in plan(prefix="t12").hosts]
    assert not any(is_socket_of("t1", name) for name in [*others, "seip0.sock", "t1s1", "t1s.sock"])


def test_a_partition_drops_both_ways_and_only_the_other() -> None:
    rules = partition_rules("198.18.0.12")
    assert "hook input" in rules
    assert "ip saddr 198.18.0.12 drop" in rules
    assert "hook output" in rules
    assert "ip daddr 198.18.0.12 drop" in rules
    assert rules.count("drop") == 2
