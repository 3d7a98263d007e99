"""An endpoint in a real mesh: what is proven to it, and what it does when its server lies."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
# Runs at the start of each interpreter; the daemon's list of peers then holds another key.
LIE = """
import sys

if "run" in sys.orig_argv:
    import dataclasses
    from seipd.api.private import mesh

    def lying(honest):
        async def answer(call):
            value = await honest(call)
            for one in value["peers"]:
                one["wireguard_key"] = "bGllcyBsaWVzIGxpZXMgbGllcyBsaWVzIGxpZXMgLi4"
            return value
        return answer

    mesh.ROUTES = tuple(
        dataclasses.replace(one, handler=lying(one.handler)) if "peers" in one.path else one
        for one in mesh.ROUTES
    )
"""


def seip(lab: Lab, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    host = lab.plan.host(name)
    return subprocess.run(
        [*host.enter(), "seip", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=lab.environment(host),
    )


def status(lab: Lab, name: str, *words: str) -> dict[str, Any]:
    return json.loads(seip(lab, name, "status", "--json", *words).stdout)


def until(probe, seconds: float = 90.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.5)
    return probe()


def is_all_proven(lab: Lab, name: str) -> bool:
    shown = status(lab, name)
    states = {shown["trust"][one]["state"] for one in ("server", "own")}
    states |= {peer["trust"] for peer in shown["peers"]}
    return states == {"proven"} and len(shown["peers"]) == 1


def test_server_and_peers_are_proven_to_every_endpoint(lab: Lab) -> None:
    for name in ("e1", "e2"):
        assert until(lambda name=name: is_all_proven(lab, name)), status(lab, name)
    shown = status(lab, "e2")["trust"]
    first = lab.status(lab.plan.host("s1"))
    # Of two servers the first is the witness: the second shows its endpoint the word of the first.
    assert shown["signers"] == [first["server_id"]]
    assert shown["needed"] == 1
    assert "server's key" in seip(lab, "e2", "status").stdout


def test_who_asks_for_more_signers_than_there_are_is_told_why(lab: Lab) -> None:
    assert until(lambda: is_all_proven(lab, "e1"))
    listed = json.loads(seip(lab, "e1", "--signers", "2", "peers", "--json").stdout)
    assert [(one["name"], one["trust"]) for one in listed] == [("e2", "believed")]
    assert listed[0]["why"] == "1 of the 2 servers that have to agree signed the state"


def test_a_server_that_lies_about_a_peers_key_is_refused_shown_and_reported(
    lab: Lab, tmp_path, monkeypatch
) -> None:
    server = lab.plan.host("s1")
    assert until(lambda: is_all_proven(lab, "e1"))
    (tmp_path / "sitecustomize.py").write_text(LIE)
    honest = lab.environment
    path = f"{tmp_path}:{REPOSITORY}"
    monkeypatch.setattr(lab, "environment", lambda host: {**honest(host), "PYTHONPATH": path})
    lab.stop_server(server)
    lab.start_server(server)
    monkeypatch.setattr(lab, "environment", honest)

    def peers() -> list[dict[str, Any]]:
        return json.loads(seip(lab, "e1", "peers", "--json").stdout or "[]")

    assert until(lambda: [one["trust"] for one in peers()] == ["refused"]), peers()
    said = seip(lab, "e1", "peers")
    assert "refused: " in said.stderr
    assert "wireguard key of e2 is another in the state that the servers signed" in said.stderr
    pinged = seip(lab, "e1", "ping", "-c", "1", "e2")
    assert pinged.returncode == 4
    assert "what the server says of e2 is false" in pinged.stderr
    for name in ("s1", "s2"):
        (report,) = lab.seipd_json(lab.plan.host(name), "trust", "status")["reports"]
        assert report["server_id"] == lab.status(server)["server_id"]
        assert report["code"] == "key_differs"
    # The tunnel that was believed stays up all the while.
    assert status(lab, "e1")["connected"]
    lab.stop_server(server)
    lab.start_server(server)
    assert until(lambda: is_all_proven(lab, "e1")), status(lab, "e1")
    assert seip(lab, "e1", "ping", "-c", "1", "e2").returncode == 0
