"""nftables by its library: transactions, errors, namespaces, threads, and what they cost nobody."""

from __future__ import annotations

import os
import threading

import pytest

from services.kernel.errors import UnavailableError
from services.runtime.nft import Nft, NftError, is_available
from tests.fakes.hosts import two_hosts

pytestmark = pytest.mark.integration

TABLE = """table ip tried {
  map ports {
    type ipv4_addr . inet_service : mark
  }
}
"""


@pytest.fixture(scope="module")
def host():
    with two_hosts("nft") as hosts:
        yield hosts[0]


@pytest.fixture
def nft(host):
    with host.entered():
        nft = Nft()
    yield nft
    nft.run("add table ip tried; delete table ip tried")
    nft.close()


def test_a_context_stays_in_the_namespace_that_it_was_made_in(host, nft):
    nft.run(TABLE)
    assert "table ip tried" in host.run("nft", "list", "tables")
    outside = Nft()
    assert "table ip tried" not in outside.run("list tables")
    outside.close()


def test_a_transaction_happens_whole_or_not_at_all(nft):
    nft.run(TABLE)
    with pytest.raises(NftError) as caught:
        nft.run(
            "add element ip tried ports { 10.0.0.1 . 1 : 7 }\n"
            "delete element ip tried ports { 10.0.0.9 . 9 }"
        )
    assert caught.value.code == "nft_missing"
    assert "10.0.0.1" not in nft.run("list map ip tried ports")


def test_what_is_there_already_is_told_by_its_code(nft):
    nft.run(TABLE)
    with pytest.raises(NftError) as caught:
        nft.run("create table ip tried")
    assert caught.value.code == "nft_exists"


def test_a_command_that_is_none_is_refused_in_one_line(nft):
    with pytest.raises(NftError) as caught:
        nft.run("no such command")
    assert caught.value.code == "nft_refused"
    assert "\n" not in str(caught.value)
    assert nft.run("list tables") == ""


def test_lists_are_read_as_objects(nft):
    nft.run(TABLE + "add element ip tried ports { 10.0.0.1 . 1 : 7 }")
    (listed,) = [one["map"] for one in nft.read("list map ip tried ports") if "map" in one]
    assert listed["elem"] == [[{"concat": ["10.0.0.1", 1]}, 7]]


def test_threads_share_a_context(nft):
    nft.run(TABLE)

    def add(thread: int) -> None:
        for at in range(50):
            nft.run(f"add element ip tried ports {{ 10.0.{thread}.{at} . 1 : 7 }}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    (listed,) = [one["map"] for one in nft.read("list map ip tried ports") if "map" in one]
    assert len(listed["elem"]) == 200


def test_a_closed_context_says_so(host):
    with host.entered():
        nft = Nft()
    nft.close()
    nft.close()
    with pytest.raises(UnavailableError) as caught:
        nft.run("list tables")
    assert caught.value.code == "nft_unavailable"


def test_availability_is_a_matter_of_rights(capfd):
    assert is_available()
    os.seteuid(65534)
    try:
        assert not is_available()
    finally:
        os.seteuid(0)
    assert capfd.readouterr() == ("", "")
