"""Every key provider, over what stands in for hardware: each function returns what opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seipd.signerd.providers.moving import MovingProvider
from seipd.signerd.providers.software import SoftwareProvider
from services.base.crypto.kdf import Argon2Cost
from tests.fakes.fake_kms import FakeKms, open_kms
from tests.fakes.softhsm import SoftToken, needs_softhsm

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from seipd.signerd.providers.base import KeyProvider

    Opener = Callable[[], KeyProvider]

UNLOCK = "an unlock secret of forty bytes, or more"
CHEAP = Argon2Cost(opslimit=1, memlimit_bytes=8192)


def software(folder: Path, _monkeypatch: pytest.MonkeyPatch, _stack: ExitStack) -> Opener:
    """Sealed files."""
    return lambda: SoftwareProvider(folder / "keys", unlock=UNLOCK.encode(), cost=CHEAP)


def softhsm(folder: Path, monkeypatch: pytest.MonkeyPatch, _stack: ExitStack) -> Opener:
    """A token by the real library of SoftHSM2."""
    token = SoftToken(folder / "hsm")
    token.use(monkeypatch)
    return token.open


def fake_kms(folder: Path, _monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> Opener:
    """The fake of AWS KMS."""
    kms = FakeKms()
    stack.callback(kms.close)
    return lambda: open_kms(kms, folder / "credentials")


def moving(folder: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> Opener:
    """Sealed files, and new keys in the fake of AWS KMS."""
    old = software(folder, monkeypatch, stack)
    new = fake_kms(folder, monkeypatch, stack)
    return lambda: MovingProvider(old=old(), new=new())


ALL = [software, pytest.param(softhsm, marks=needs_softhsm), fake_kms, moving]
HARDWARE = [pytest.param(softhsm, marks=needs_softhsm), fake_kms]
