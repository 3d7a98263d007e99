"""Our programs as processes of their own that begin with everything imported.

Most of what a short command costs is the import of its libraries. Here a process that has them
forks, so that a test may run a command as often as a person would. What it is about is the
command: for how a program starts, end and import are tested, run it by its name.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

TIMEOUT_S = 60.0

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.fakes.preloaded"])


def run_program(
    module: str, *words: object, stdin: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module words``; the environment and the folder are those of the caller.

    ``stdin`` is a descriptor, or ``subprocess.DEVNULL``. What does not end in a minute is killed.
    """
    arguments = [module, *map(str, words)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = _CONTEXT.Process(
            target=_become,
            args=(module, arguments, dict(os.environ), str(Path.cwd()), folder, _Stdin(stdin)),
        )
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = ((folder / one).read_text(encoding="utf-8") for one in ("out", "err"))
    assert process.exitcode is not None
    return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


class _Stdin:
    """A descriptor on its way to another process."""

    def __init__(self, descriptor: int) -> None:
        self._sent = None if descriptor == subprocess.DEVNULL else _dup(descriptor)

    def open(self) -> int:
        """Return the descriptor, in the process that got it."""
        return os.open(os.devnull, os.O_RDONLY) if self._sent is None else self._sent.detach()


def _dup(descriptor: int):
    from multiprocessing.reduction import DupFd

    return DupFd(descriptor)


def _become(
    module: str, words: list[str], environ: dict[str, str], cwd: str, folder: Path, stdin: _Stdin
) -> None:
    os.dup2(stdin.open(), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = words
    if not hasattr(sys.modules.get(module), "__path__"):
        sys.modules.pop(module, None)  # runpy warns of a module that it finds there
    runpy.run_module(module, run_name="__main__", alter_sys=True)
