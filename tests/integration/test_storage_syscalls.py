"""A real writer process whose system calls are failed or killed by strace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.base.storage import files

REPO = Path(__file__).resolve().parents[2]
OLD, NEW = b"old" * 3000, b"new" * 3000
WRITER = """
import sys
from pathlib import Path
from services.base.storage.files import write_atomic
from services.kernel.errors import StorageError
try:
    write_atomic(Path(sys.argv[1]), b"new" * 3000)
except StorageError as error:
    sys.exit(error.code)
print("answered")
"""
RENAMES = "rename,renameat,renameat2"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]


@pytest.mark.parametrize(
    ("call", "when"), [("fchmod", 1), ("fsync", 1), (RENAMES, 1), ("fsync", 2)]
)
@pytest.mark.parametrize("fault", ["signal=KILL", "error=EIO", "error=ENOSPC"])
def test_sto_01_03_a_real_process_leaves_old_or_new(
    tmp_path: Path, call: str, when: int, fault: str
):
    path = tmp_path / "state"
    files.write_atomic(path, OLD)
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    command += ["-e", f"inject={call}:{fault}:when={when}"]
    command += [sys.executable, "-c", WRITER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPO)
    last_step = (call, when) == ("fsync", 2)
    assert "answered" not in done.stdout
    assert path.read_bytes() == (NEW if last_step else OLD)
    if fault == "signal=KILL":
        files.sweep_temporaries(tmp_path)
    else:
        assert "storage_unavailable" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_without_a_fault_the_write_is_answered_for(tmp_path: Path):
    path = tmp_path / "state"
    command = [sys.executable, "-c", WRITER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPO)
    assert done.stdout == "answered\n"
    assert path.read_bytes() == NEW
