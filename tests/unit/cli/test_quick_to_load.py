"""What is waited for at a prompt loads what it needs: libraries of the daemon take a second."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = ("aiohttp", "grpc", "pyroute2", "prometheus_client", "services.edge.relay")


@pytest.mark.parametrize(
    ("command", "may_load"),
    [
        (["seipd", "status"], set()),
        (["seipd", "config", "show"], set()),
        (["seipd", "invite", "endpoint"], set()),
        (["seipd", "init", "--allow-insecure-same-user", "--json"], {"aiohttp", "grpc"}),
        (["seipd", "join", "no-token"], {"aiohttp"}),
        (["seipd.agent", "status"], set()),
        (["seipd.agent", "peers"], {"aiohttp"}),
        (["seipd.agent", "join", "no-token"], {"aiohttp"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_loads_nothing_slow_that_it_does_not_need(tmp_path, command, may_load):
    module, *words = command
    root = ["--data-root" if module == "seipd" else "--state", str(tmp_path / "none")]
    # Whatever comes of the command: what it loaded until then is looked at.
    program = (
        "import runpy, sys\n"
        f"sys.argv = {[module, *root, *words]!r}\n"
        f"try: runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit: pass\n"
        f"print('loaded', *({set(SLOW)!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    told = done.stdout.splitlines()[-1].split()
    assert told[0] == "loaded"
    assert set(told[1:]) <= may_load
