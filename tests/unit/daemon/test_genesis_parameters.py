"""What a mesh begins with: parameters that the genesis names, and defaults."""

from __future__ import annotations

import pytest

from seipd.cli.options import parameters_of
from seipd.daemon.genesis import MeshFacts, found_mesh
from services.authority.governance import parameters
from services.base.ledger.changes import genesis_from_record
from services.base.ledger.state import State
from services.kernel.addr import default_ranges
from services.kernel.errors import ConfigError, RejectedError
from tests.fakes.one_server import OneServer
from tests.fakes.programs import run_program


async def genesis_of(tmp_path, **said):
    one = OneServer(tmp_path)
    records = await found_mesh(
        MeshFacts(domain="a.b", region="eu-central", ranges=default_ranges(), parameters=said),
        identity=one.identity,
        tls_key_hash=bytes(32),
        signer=one.signer,
        clock=one.clock,
    )
    return records[0]


async def test_the_genesis_names_what_differs_from_the_defaults(tmp_path) -> None:
    record = await genesis_of(tmp_path, enrollment_policy="quorum", share_quorum_percent=60)
    assert genesis_from_record(record).mesh_id
    state = State()
    state.put("mesh", "genesis", record.value())
    assert parameters.value(state, parameters.ENROLLMENT) == "quorum"
    assert parameters.number(state, parameters.SHARE_QUORUM) == 60
    assert parameters.number(state, parameters.ROTATION) == 7
    state.put("param", parameters.SHARE_QUORUM, {"value": 80, "proposal": "x"})
    assert parameters.number(state, parameters.SHARE_QUORUM) == 80


@pytest.mark.parametrize(("said", "days"), [({}, 14), ({"root_rotation_interval_days": 30}, 60)])
async def test_the_first_root_key_is_good_for_two_intervals(tmp_path, said, days) -> None:
    body = (await genesis_of(tmp_path, **said)).body
    assert body["expires_ms"] - body["activated_ms"] == days * 86_400_000


async def test_a_genesis_without_parameters_is_as_it_was(tmp_path) -> None:
    assert "parameters" not in (await genesis_of(tmp_path)).body


def test_what_a_genesis_can_t_say_is_not_believed() -> None:
    state = State()
    body = {"parameters": {"share_quorum_percent": 7, "enrollment_policy": 1}}
    state.put("mesh", "genesis", {"body": body})
    assert parameters.number(state, parameters.SHARE_QUORUM) == 75
    assert parameters.value(state, parameters.ENROLLMENT) == "open"


async def test_gov_04_nobody_founds_a_mesh_with_a_value_out_of_range(tmp_path) -> None:
    with pytest.raises(RejectedError) as caught:
        await genesis_of(tmp_path, root_rotation_interval_days=0)
    assert caught.value.code == "out_of_range"


def test_parameters_on_the_command_line() -> None:
    said = ["share_quorum_percent=60", "enrollment_policy=quorum"]
    assert parameters_of(said) == {"share_quorum_percent": 60, "enrollment_policy": "quorum"}
    for wrong in (["share_quorum_percent"], [said[0], said[0]]):
        with pytest.raises(ConfigError):
            parameters_of(wrong)
    for wrong, code in (("a=1", "unknown_parameter"), ("share_quorum_percent=0.6", "out_of_range")):
        with pytest.raises(RejectedError) as caught:
            parameters_of([wrong])
        assert caught.value.code == code


def test_init_refuses_a_value_out_of_range_before_it_makes_anything(tmp_path) -> None:
    parameter = "root_rotation_interval_days=91"
    done = run_program("seipd", f"--data-root={tmp_path}/data", "init", "--parameter", parameter)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: root_rotation_interval_days is 1-90\n"
    assert not (tmp_path / "data").exists()
