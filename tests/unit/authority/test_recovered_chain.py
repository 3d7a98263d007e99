"""What is shown of a chain with a recovery in it is what an auditor needs, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from seipd.cli.verify import cli
from services.authority.rootkeys.service import RootKeysService
from services.base.ledger.rootwalk import chain_from_values, shown_chain
from services.kernel import canonical
from tests.fakes.recovering import MeshLedger, StillClock
from tests.unit.authority.test_root_recovery import LostRoot

if TYPE_CHECKING:
    from pathlib import Path


async def recovered(folder: Path) -> LostRoot:
    """Deal three times, so that there are recovery keys that endorsed nothing, and recover."""
    lost = await LostRoot(folder).dealt(3)
    await lost.recovering.begin()
    for at in (2, 3, 4):
        await lost.approve(at)
    await lost.recovering.finish()
    return lost


def verified(folder: Path, rows: list[dict[str, Any]], root: str) -> dict[str, Any]:
    """Run ``seipd-verify chain``."""
    path = folder / "chain.json"
    path.write_bytes(canonical.encode(rows))
    words = ["chain", str(path), "--root", root, "--json"]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    return canonical.decode_object(done.stdout.encode())


async def test_what_the_command_line_prints_of_a_recovered_chain_verifies_offline(
    tmp_path: Path,
) -> None:
    lost = await recovered(tmp_path)
    keys = RootKeysService(ledger=MeshLedger(lost.mesh, 3), signer=None, clock=StillClock())
    rows = keys.describe()
    assert [one["endorsed_by"] for one in rows][1:] == ["recovery"]
    found = verified(tmp_path, rows, lost.mesh.world.mesh_id)
    assert (found["good"], found["generation"]) == (True, 2)
    without = [{**one, "named_recovery_key": None} for one in rows]
    refused = verified(tmp_path, without, lost.mesh.world.mesh_id)
    assert (refused["good"], refused["code"]) == (False, "root_unendorsed")


async def test_of_the_recovery_keys_those_alone_are_shown_that_endorsed_a_root(
    tmp_path: Path,
) -> None:
    lost = await recovered(tmp_path)
    charter = lost.mesh.world.charter
    assert len(charter.chain.recovery_keys) == 3
    shown = shown_chain(charter)
    assert [one.kind for one in shown] == ["root.genesis", "roster.change", "root.rotate"]
    walk = chain_from_values([one.value() for one in shown], charter.genesis.mesh_id)
    assert walk.chain.newest.public_key == lost.root.public_key
