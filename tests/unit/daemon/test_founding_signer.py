"""Where a mesh's first root key may be, by the setting ``signer``."""

from __future__ import annotations

import pytest

from seipd.config.model import Settings
from seipd.config.paths import Paths
from seipd.daemon.founding_signer import founding_signer
from services.kernel.errors import ConfigError, UnavailableError


async def found(tmp_path, signer: str) -> None:
    settings = Settings(data_root=tmp_path / "data", signer=signer)
    async with founding_signer(settings, Paths(settings.data_root)):
        raise AssertionError("there is no signer")


@pytest.mark.parametrize("signer", ["none", "tls://192.0.2.1:9107"])
async def test_a_mesh_is_not_founded_far_from_its_signer(tmp_path, signer) -> None:
    with pytest.raises(ConfigError) as refused:
        await found(tmp_path, signer)
    assert refused.value.code == "no_signer"
    assert not (tmp_path / "data-signer").exists()


async def test_no_signer_is_started_in_the_place_of_one_that_is_set(tmp_path) -> None:
    with pytest.raises(UnavailableError) as refused:
        await found(tmp_path, str(tmp_path / "signer.sock"))
    assert refused.value.code == "signer_unavailable"
    assert not (tmp_path / "data-signer").exists()
