"""What is left of an agent that ended, was killed, or has a full disk; and who finds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from seipd.agent import background
from seipd.agent.ending import end_each
from seipd.agent.hostdns import ways
from seipd.agent.lock import last_interface, only_agent, running_agent
from seipd.agent.main import seip_group
from seipd.agent.noting import note
from seipd.agent.routes.forwarding import Forwarding
from seipd.agent.state import AgentState
from seipd.agent.telling import StatusFile
from seipd.cli.group import run_group
from services.base.storage import files
from services.base.storage.files import make_private_dir
from services.edge.wireguard.ownership import Ownership
from services.kernel import canonical


@pytest.fixture
def state(tmp_path) -> AgentState:
    made = AgentState(tmp_path / "seip")
    make_private_dir(made.run)
    return made


def test_who_was_the_last_to_run_is_known_by_its_interface(state) -> None:
    assert last_interface(state) is None
    with only_agent(state, "office-tunnel") as before:
        assert before is None
        assert last_interface(state) == "office-tunnel"
    with only_agent(state, "wg7") as before:
        assert before == "office-tunnel", "what was killed there has to make room"
    assert last_interface(state) == "wg7"
    assert running_agent(state) is None


@pytest.mark.parametrize("text", ["", "77", "77\n", "77 ../../x\n", "77 sixteen-letters-x\n", "x"])
def test_a_note_that_names_no_interface_names_none(state, text) -> None:
    (state.run / "lock").write_text(text)
    assert last_interface(state) is None


def test_an_agent_begins_where_its_lock_takes_no_word_more(state, monkeypatch) -> None:
    def full(*_) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with only_agent(state, "wg7"):
        pass


@pytest.mark.parametrize(
    ("words", "expected"), [((), "office-tunnel"), (("--wireguard-interface", "wg9"), "wg9")]
)
def test_down_takes_away_what_it_was_up_on_last(
    state, monkeypatch, capsys, words, expected
) -> None:
    with only_agent(state, "office-tunnel"):
        pass
    taken = []

    async def removed(_, interface: str, __) -> bool:
        taken.append(interface)
        return True

    for name in [name for name in os.environ if name.startswith("SEIP_")]:
        monkeypatch.delenv(name)
    state.keys(create=True)
    monkeypatch.setattr(AgentState, "mesh", lambda _: {})
    monkeypatch.setattr(background, "remove_tunnel", removed)
    monkeypatch.setattr(ways, "restore_file", lambda _: None)
    monkeypatch.setattr("sys.argv", ["seip", "--state", str(state.folder), "down", *words])
    assert run_group(seip_group(), "seip") == 0
    assert taken == [expected]
    assert capsys.readouterr().out == "down\n"


def test_an_agent_that_hangs_is_killed(state, monkeypatch) -> None:
    words = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", words, "seip", "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout.readline() == b"\n"
        monkeypatch.setattr(background, "DOWN_TIMEOUT_S", 0.2)
        status = {"pid": child.pid}
        (state.run / "status.json").write_bytes(canonical.encode(status))
        (state.run / "status.json").chmod(0o600)
        assert background.stop_agent(state)
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.communicate()


async def test_what_fails_while_it_ends_keeps_nothing_else_up(caplog) -> None:
    done = []

    async def well() -> None:
        done.append("well")

    async def badly() -> None:
        raise OSError(30, "Read-only file system")

    await end_each({"one": well, "two": badly, "three": well})
    assert done == ["well", "well"]
    assert "two did not end well" in caplog.text


def _refuses(monkeypatch) -> None:
    """Have the disk take nothing any more."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_new", full)
    for name in ("touch", "unlink", "replace"):
        monkeypatch.setattr(f"pathlib.Path.{name}", full)


def test_on_a_full_disk_a_tunnel_comes_up_and_goes(state, monkeypatch, caplog) -> None:
    owner = Ownership(interface="wg9", backend="kernel", run_dir=state.run)
    _refuses(monkeypatch)
    owner.begin()
    owner.forget()
    Forwarding(state.run).restore()
    background.forget_status(state)
    StatusFile(state.run / "status.json").write({})
    assert not note(state.folder / "servers.json", {"servers": []})
    assert "that it is ours is not noted" in caplog.text
    assert "not kept for the next start" in caplog.text
    monkeypatch.undo()
    assert [one.name for one in state.run.iterdir()] in ([], ["status.json.new"])


def test_what_was_told_of_a_killed_agent_is_told_no_more(state) -> None:
    for name in ("status.json", "status.json.new"):
        (state.run / name).write_text("{}")
    background.forget_status(state)
    assert list(state.run.iterdir()) == []
