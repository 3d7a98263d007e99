"""When an address is told, and what is made of refusals."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.ddns.planning import FIRST_PAUSE_S, MAX_PAUSE_S, Plan
from services.edge.ddns.target import Way, parse_target, tsig_key
from services.kernel.errors import InputError, SeipdError, UnauthenticatedError, UnreachableError
from services.kernel.service import HealthState
from tests.fakes.ddns import Provider, ddns_service

RNG = random.Random(1)  # noqa: S311 (failures repeat)
KEY = "hmac-sha512:mesh-key."


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def now_ms(self) -> int:
        return 1_800_000_000_000

    def monotonic_s(self) -> float:
        return self.now_s


def target(**changes):
    fields = {
        "way": "rfc2136",
        "name": "S1.dyn.example.org.",
        "zone": "",
        "server": "192.0.2.53",
        "key": "mesh-key",
        "secret": "",
    } | changes
    return parse_target(fields.pop("way"), **fields)


class Kept:
    """The service, and what it looks at."""

    def __init__(self, folder, **changes) -> None:
        self.clock, self.provider = Clock(), Provider()
        self.address = "198.51.100.1"
        self.service = ddns_service(
            folder,
            self.clock,
            target=target(**changes),
            provider=self.provider,
            address=lambda: self.address,
        )


async def test_an_address_is_told_once_and_again_when_it_changes(tmp_path) -> None:
    one = Kept(tmp_path)
    for _ in range(3):
        await one.service.look()
    one.address = "198.51.100.2"
    for _ in range(3):
        await one.service.look()
    assert one.provider.told == ["198.51.100.1", "198.51.100.2"]
    assert one.service.health().detail == "s1.dyn.example.org 198.51.100.2"


async def test_what_was_told_is_not_told_again_after_a_restart(tmp_path) -> None:
    await Kept(tmp_path).service.look()
    again = Kept(tmp_path)
    await again.service.start()
    await again.service.look()
    await again.service.stop()
    assert again.provider.told == []
    elsewhere = Kept(tmp_path, name="s2.dyn.example.org")
    await elsewhere.service.start()
    await elsewhere.service.look()
    await elsewhere.service.stop()
    assert elsewhere.provider.told == ["198.51.100.1"]


async def test_a_damaged_file_costs_one_telling_more(tmp_path) -> None:
    await Kept(tmp_path).service.look()
    (tmp_path / "dns" / "ddns.json").write_bytes(b"{")
    again = Kept(tmp_path)
    await again.service.start()
    await again.service.look()
    await again.service.stop()
    assert again.provider.told == ["198.51.100.1"]


async def test_a_refusal_is_told_and_tried_again_later_and_later(tmp_path) -> None:
    one = Kept(tmp_path)
    one.provider.error = UnauthenticatedError("not that key", code="ddns_key_refused")
    tried_s = []
    for _ in range(40_000):
        before = one.provider.asked_count
        await one.service.look()
        if one.provider.asked_count > before:
            tried_s.append(one.clock.now_s)
        one.clock.now_s += 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried_s)]
    assert FIRST_PAUSE_S / 2 <= pauses[0] <= FIRST_PAUSE_S + 1
    assert pauses[:5] == sorted(pauses[:5])
    assert max(pauses) <= MAX_PAUSE_S + 1
    assert min(pauses[-3:]) >= MAX_PAUSE_S / 2
    status = one.service.status()
    assert (status["code"], status["trouble"]) == ("ddns_key_refused", "not that key")
    assert one.service.health().state is HealthState.DEGRADED
    one.provider.error = None
    assert (await one.service.update())["trouble"] is None


async def test_another_address_does_not_wait_for_the_failure_of_the_one_before(tmp_path) -> None:
    one = Kept(tmp_path)
    one.provider.error = UnreachableError("away")
    await one.service.look()
    one.provider.error, one.address = None, "198.51.100.3"
    await one.service.look()
    assert one.provider.told == ["198.51.100.3"]


async def test_addresses_that_come_and_go_do_not_make_it_hurry(tmp_path) -> None:
    one = Kept(tmp_path)
    one.provider.error = UnreachableError("away")
    for second in range(3600):
        one.address = f"198.51.100.{2 + second // 10 % 2}"
        await one.service.look()
        one.clock.now_s += 1
    assert one.provider.asked_count < 12
    one.provider.error, one.address = None, "198.51.100.99"
    await one.service.look()
    assert one.provider.told == ["198.51.100.99"]


async def test_without_its_secret_nobody_is_asked_and_it_goes_on_at_once_when_it_is_there(
    tmp_path,
) -> None:
    one = Kept(tmp_path, secret="other")
    await one.service.look()
    assert one.provider.asked_count == 0
    assert one.service.status()["code"] == "no_secret"


async def test_a_word_tells_it_again_and_says_why_not(tmp_path) -> None:
    one = Kept(tmp_path)
    await one.service.look()
    await one.service.update()
    assert len(one.provider.told) == 2
    one.address = ""
    with pytest.raises(SeipdError, match="no public address"):
        await one.service.update()
    unused = ddns_service(tmp_path, Clock())
    assert unused.status() == {"way": None}
    with pytest.raises(SeipdError, match="no name"):
        await unused.update()


@given(st.lists(st.booleans(), max_size=30), st.integers())
def test_a_pause_is_never_longer_than_an_hour_nor_none_at_all(outcomes, seed) -> None:
    rng, plan, now_s = random.Random(seed), Plan(), 0.0  # noqa: S311
    for failed in outcomes:
        if not failed:
            plan = plan.succeeded("a")
            assert not plan.is_due("a", now_s=now_s)
            continue
        plan = plan.failed("b", now_s=now_s, rng=rng)
        assert now_s + FIRST_PAUSE_S / 2 <= plan.due_s <= now_s + MAX_PAUSE_S
        assert not plan.is_due("b", now_s=now_s)
        now_s = plan.due_s
        assert plan.is_due("b", now_s=now_s)


def test_the_settings_name_a_place() -> None:
    found = target(zone="example.org", server="[2001:db8::1]:5353", key=KEY)
    assert found is not None
    assert (found.server, found.port) == ("2001:db8::1", 5353)
    assert (found.algorithm, found.key_name) == ("hmac-sha512", "mesh-key")
    assert (found.name, found.zone, found.host) == ("s1.dyn.example.org", "example.org", "s1.dyn")
    cheap = target(way="namecheap", server="", key="", name="example.org", zone="example.org")
    assert cheap is not None
    assert (cheap.way, cheap.host, cheap.secret) == (Way.NAMECHEAP, "@", "ddns")
    assert target(way="") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"way": "carrier pigeon"},
        {"name": ""},
        {"name": "org"},
        {"name": "a..b"},
        {"zone": "example.com"},
        {"server": ""},
        {"key": ""},
        {"key": "hmac-md5:mesh-key"},
        {"server": "host:0"},
        {"server": "host:99999"},
        {"server": "[::1"},
        {"way": "namecheap"},
    ],
)
def test_settings_that_name_none_are_refused(changes) -> None:
    with pytest.raises(InputError) as caught:
        target(**changes)
    assert caught.value.code == "bad_ddns"


@pytest.mark.parametrize("value", [b"", b"not base64!", b"c2hvcnQ=", b"\xff" * 40])
def test_a_secret_that_is_no_key_is_told(value: bytes) -> None:
    with pytest.raises(InputError, match="no TSIG key"):
        tsig_key(value)
