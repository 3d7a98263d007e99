"""``seipd-verify chain`` and ``certificate``, as an auditor calls them, with no daemon."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from click.testing import CliRunner

from seipd.cli.verify import cli
from services.base.ledger.rootwalk import shown_chain
from services.kernel import canonical
from tests.fakes.rootlinks import DAY_MS, link_after, rotate, rotation
from tests.fakes.world import START_MS, World, key_of


class Audit:
    """Three generations, each with a certificate of its own, and files of what is shown."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.world = world = World(1)
        self.first = world.root
        self.certificates = [world.charter.records[1]]
        for number in (2, 3):
            rotate(world, f"root {number}")
            again = [one.value() for one in world.charter.servers().values()]
            self.certificates.append(world.change(world.servers[0], servers=again))
        self.chain = shown_chain(world.charter)

    def file(self, value, name: str = "file.json"):
        path = self.folder / name
        path.write_bytes(canonical.encode(value))
        return path

    def run(self, *words) -> tuple[int, dict]:
        done = CliRunner().invoke(cli, [*map(str, words), "--json"], standalone_mode=False)
        told = canonical.decode(done.stdout.encode()) if done.stdout else {}
        code = done.return_value if isinstance(done.return_value, int) else 0
        return getattr(done.exception, "exit_code", code), told

    def judge(self, records, root: str | None = None) -> str:
        path = self.file([one.value() for one in records])
        status, told = self.run("chain", path, "--root", root or self.world.mesh_id)
        assert (status == 0) == told["good"]
        return "good" if told["good"] else told["code"]


@pytest.fixture
def audit(tmp_path) -> Audit:
    return Audit(tmp_path)


def test_the_whole_chain_is_good_from_any_of_its_keys(audit) -> None:
    for one in audit.world.charter.chain.generations:
        assert audit.judge(audit.chain, one.fingerprint) == "good"
    assert audit.judge(audit.world.charter.records) == "good"
    assert audit.judge(audit.chain, "0" * 64) == "root_other"


def test_what_the_command_line_prints_is_read_as_it_is(audit) -> None:
    shown = [{"generation": 1, "record": one.value()} for one in audit.chain]
    for value in (shown, {"chain": shown}):
        status, told = audit.run("chain", audit.file(value), "--root", audit.world.mesh_id)
        assert (status, told["generation"]) == (0, 3)


def test_each_refusal_has_its_own_code(audit) -> None:
    genesis, second, third = audit.chain
    assert audit.judge([second, third]) == "root_malformed"
    assert audit.judge([genesis, third]) == "root_orphan"
    unsigned = dataclasses.replace(second, actor_sig=bytes(64))
    assert audit.judge([genesis, unsigned, third]) == "root_unproven"
    assert audit.judge(World(1).charter.records[1:]) == "root_malformed"


def test_rkc_01_rkc_03_forks_jumps_and_missing_endorsements_are_refused(tmp_path) -> None:
    world = World(1)
    audit = Audit(tmp_path)
    place, parent = world.charter, world.root
    link = rotation(world, place, parent, key_of("root 2"))
    rival = rotation(world, place, parent, key_of("thief"))
    jump = rotation(world, place, parent, key_of("root 3"), generation=3)
    bare = world.signed(key_of("x"), "root.rotate", link_after(world, place, key_of("x")).value())
    early = rotation(world, place, parent, key_of("y"), closes_ms=START_MS - DAY_MS)
    for records, code in (
        ([link], "good"),
        ([link, rival], "root_fork"),
        ([rival, link], "root_fork"),
        ([jump], "root_skipped"),
        ([bare], "root_unendorsed"),
        ([early], "root_window"),
    ):
        assert audit.judge([world.genesis, *records], world.mesh_id) == code


def test_rkc_05_a_certificate_is_good_until_the_window_of_its_key_has_closed(audit) -> None:
    chain = audit.file([one.value() for one in audit.chain], "chain.json")
    closes_ms = audit.world.charter.chain.generations[0].closes_ms

    def at(time_ms: int) -> str:
        when = datetime.datetime.fromtimestamp(time_ms / 1000, tz=datetime.UTC)
        return f"{when:%Y-%m-%dT%H:%M:%SZ}"

    for record, after_ms, code in (
        (audit.certificates[0], 0, "good"),
        (audit.certificates[0], 1000, "root_window_closed"),
        (audit.certificates[2], 1000, "good"),
    ):
        words = ("certificate", audit.file(record.value()), "--chain", chain)
        status, told = audit.run(*words, "--at", at(closes_ms + after_ms))
        assert (status == 0, told.get("code", "good")) == (code == "good", code)
    stolen = audit.world.signed(audit.first, "roster.change", audit.certificates[2].body)
    status, told = audit.run("certificate", audit.file(stolen.value()), "--chain", chain)
    assert (status, told["code"]) == (1, "root_retired")
    stranger = audit.world.signed(key_of("z"), "roster.change", audit.certificates[2].body)
    status, told = audit.run("certificate", audit.file(stranger.value()), "--chain", chain)
    assert (status, told["code"]) == (1, "rejected_unauthorised")


@pytest.mark.parametrize("data", [b"", b"[", b"{}", b"[[]]", b'[{"record":1}]', b"\xff"])
def test_rubbish_is_not_good_and_no_traceback(audit, data) -> None:
    path = audit.folder / "rubbish"
    path.write_bytes(data)
    status, told = audit.run("chain", path, "--root", audit.world.mesh_id)
    assert (status, told["code"]) == (1, "root_malformed")
