"""The measurement of an installation: what changes it, and what must not."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.base.release.installed import Installation, measure, this_installation
from services.kernel.errors import CorruptError

if TYPE_CHECKING:
    from services.base.release.measurement import Measurement


class Machine:
    """An installation of a program and one package below a folder."""

    def __init__(self, folder: Path) -> None:
        self.site = folder / "venv/lib/site-packages"
        self.scripts = folder / "venv/bin"
        self.stdlib = folder / "lib/python"
        for path in (self.site, self.scripts, self.stdlib):
            path.mkdir(parents=True)
        self.write(self.stdlib / "json/__init__.py", "standard")
        self.write(folder / "python", "interpreter")
        self.folder = folder
        self.package("seipd", {"seipd/__init__.py": "program", "services/__init__.py": ""})
        self.package("leaf", {"leaf.py": "a leaf"})

    def package(self, name: str, files: dict[str, str]) -> None:
        info = f"{name}-1.2.3.dist-info"
        files = files | {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n"
        }
        lines = []
        for relative, text in files.items():
            self.write(self.site / relative, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            lines.append(f"{relative},sha256={digest.rstrip(b'=').decode()},{len(text)}")
        lines += [f"{info}/INSTALLER,,", f"{info}/RECORD,,", f"../../bin/{name},,"]
        self.write(self.site / info / "INSTALLER", "pip")
        self.write(self.scripts / name, f"#!{self.scripts}/python")
        self.write(self.site / info / "RECORD", "\n".join(lines) + "\n")

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def measure(self) -> Measurement:
        return measure(
            Installation(
                site_folders=(self.site,),
                scripts=self.scripts,
                executable=self.folder / "python",
                library=None,
                stdlib=self.stdlib,
            )
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "one")


def test_two_machines_with_the_same_release_measure_the_same(
    machine: Machine, tmp_path: Path
) -> None:
    other = Machine(tmp_path / "another/place")
    other.write(other.site / "leaf-1.2.3.dist-info/INSTALLER", "uv")
    other.write(other.site / "__pycache__/leaf.cpython-311.pyc", "byte code")
    other.package("pip", {"pip/__init__.py": "of that machine"})
    other.write(other.stdlib / "tkinter/__init__.py", "packaged apart")
    assert other.measure().digest == machine.measure().digest
    assert machine.measure().altered == ()
    assert {one.name for one in machine.measure().distributions} == {"leaf", "seipd"}
    assert machine.measure().version == "1.2.3"


@pytest.mark.parametrize(
    "relative",
    [
        "venv/lib/site-packages/seipd/__init__.py",
        "venv/lib/site-packages/services/__init__.py",
        "venv/lib/site-packages/leaf.py",
        "venv/lib/site-packages/leaf-1.2.3.dist-info/METADATA",
        "python",
        "lib/python/json/__init__.py",
    ],
)
def test_att_01_any_changed_file_of_packages_or_interpreter_changes_the_measurement(
    machine: Machine, relative: str
) -> None:
    before = machine.measure()
    path = machine.folder / relative
    path.write_text(path.read_text() + "\n")
    after = machine.measure()
    assert after.digest != before.digest
    if "site-packages" in relative:
        assert after.altered == (relative.removeprefix("venv/lib/site-packages/"),)


@pytest.mark.parametrize(
    ("relative", "stray"),
    [("leaf/__init__.py", True), ("evil.pth", False), ("sitecustomize.py", True), ("x.so", True)],
)
def test_att_01_a_file_that_no_package_owns_changes_the_measurement(
    machine: Machine, relative: str, stray: bool
) -> None:
    before = machine.measure()
    machine.write(machine.site / relative, "import os")
    after = machine.measure()
    assert after.digest != before.digest
    assert after.stray_names == ((relative,) if stray else ())


def test_att_01_a_record_that_was_rewritten_with_its_file_helps_nothing(machine: Machine) -> None:
    before = machine.measure()
    machine.package("leaf", {"leaf.py": "another leaf"})
    after = machine.measure()
    assert after.altered == ()
    assert after.digest != before.digest


def test_a_start_hook_of_an_installer_counts(machine: Machine) -> None:
    before = machine.measure()
    machine.package("setuptools", {"distutils-precedence.pth": "import sys"})
    assert machine.measure().digest != before.digest


def test_an_added_or_removed_package_changes_the_measurement(machine: Machine) -> None:
    before = machine.measure()
    machine.package("more", {"more.py": ""})
    assert machine.measure().digest != before.digest


def test_a_missing_file_is_told(machine: Machine) -> None:
    (machine.site / "leaf.py").unlink()
    with pytest.raises(CorruptError) as caught:
        machine.measure()
    assert caught.value.code == "release_unreadable"
    assert caught.value.path.endswith("leaf.py")


@pytest.mark.slow
def test_the_running_program_is_measured_with_its_sources() -> None:
    installation = this_installation()
    found = measure(dataclasses.replace(installation, stdlib=Path("/nonexistent")))
    program = next(one for one in found.distributions if one.name == "seipd")
    assert program.file_count > 100
    assert {one.name for one in found.distributions} >= {"aiohttp", "cryptography", "pynacl"}
    assert installation.executable == Path(os.path.realpath("/proc/self/exe"))
    assert len(found.digest) == 64
