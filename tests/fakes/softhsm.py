"""A token of SoftHSM in a folder: the real library, without the hardware."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pkcs11
import pytest

from seipd.signerd.providers.pkcs11 import Pkcs11Provider, TokenPlace

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
)
MODULE = next((path for path in MODULES if Path(path).exists()), None)
LABEL, PIN, OFFICER_PIN = "seipd test", "271828", "31415926"

needs_softhsm = pytest.mark.skipif(
    MODULE is None or shutil.which("softhsm2-util") is None, reason="softhsm2 is not installed"
)


class SoftToken:
    """One folder of tokens, the first of them made; ``use`` makes it that of this process."""

    def __init__(self, folder: Path) -> None:
        assert MODULE is not None
        self.module = MODULE
        self.tokens = folder / "tokens"
        self.config = folder / "softhsm2.conf"
        self.tokens.mkdir(parents=True, mode=0o700)
        self.config.write_text(
            f"directories.tokendir = {self.tokens}\n"
            "objectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
        )
        self.add(LABEL)

    def add(self, label: str) -> None:
        """Make a token; the numbers of slots are new after."""
        subprocess.run(
            [
                "softhsm2-util", "--init-token", "--free", "--label", label,
                "--pin", PIN, "--so-pin", OFFICER_PIN,
            ],
            env=os.environ | {"SOFTHSM2_CONF": str(self.config)},
            check=True,
            capture_output=True,
        )  # fmt: skip

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have this process find these tokens and no others."""
        monkeypatch.setenv("SOFTHSM2_CONF", str(self.config))
        pkcs11.lib(self.module).reinitialize()

    def library(self):
        """Return the library, loaded in this process."""
        return pkcs11.lib(self.module)

    def open(self, *, pin: str = PIN, label: str = LABEL, **options) -> Pkcs11Provider:
        """Return a provider of a token."""
        place = TokenPlace(module=self.module, token_label=label, pin=pin)
        return Pkcs11Provider(place, **options)
