"""What somebody sees of `seip` who is not root, or whose state was damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from seipd.agent import background
from seipd.agent.hostdns import ways
from seipd.agent.main import seip_group
from seipd.agent.state import AgentState
from seipd.cli.group import run_group

NOBODY = 65_534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("words", [("status",), ("up",), ("doctor",), ("down",), ("ping", "e2")])
def test_cli_07_the_state_of_root_is_not_anybodys_to_read(tmp_path, words) -> None:
    state = AgentState(tmp_path / "seip")
    state.keys(create=True)
    (state.folder / "mesh.json").write_text("{}")
    tmp_path.chmod(0o755)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    program = [sys.executable, "-m", "seipd.agent", "--state", str(state.folder), *words]
    done = subprocess.run(
        program, capture_output=True, text=True, check=False, user=NOBODY, group=NOBODY
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"error: {state.folder} is not yours to read — use sudo, as for seip up\n"


def test_cli_07_whose_state_is_damaged_can_leave_as_the_error_says(
    tmp_path, monkeypatch, capsys
) -> None:
    state = AgentState(tmp_path / "seip")
    state.keys(create=True)
    (state.folder / "mesh.json").write_text(json.dumps({"mesh_id": 7}))
    (state.folder / "mesh.json").chmod(0o600)

    async def removed(*_) -> bool:
        return False

    monkeypatch.setattr(background, "remove_tunnel", removed)
    monkeypatch.setattr(ways, "restore_file", lambda _: None)

    def seip(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["seip", "--state", str(state.folder), *words])
        return run_group(seip_group(), "seip"), capsys.readouterr().err

    status, err = seip("status")
    assert status != 0
    assert "seip leave, then join again" in err
    status, err = seip("leave")
    assert status == 0
    assert "the mesh is not told" in err
    assert not state.joined
    assert seip("status")[0] == 5
