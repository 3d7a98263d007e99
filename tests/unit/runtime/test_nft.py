"""nftables where there is none."""

from __future__ import annotations

import pytest

from services.kernel.errors import UnavailableError
from services.runtime import nft


def test_a_missing_library_is_told_with_its_mend(monkeypatch):
    monkeypatch.setattr(nft, "LIBRARY", "libnosuchtables.so.1")
    with pytest.raises(UnavailableError) as caught:
        nft.Nft()
    assert caught.value.code == "nft_unavailable"
    assert "install the package nftables" in caught.value.diagnostics()
    assert not nft.is_available()
