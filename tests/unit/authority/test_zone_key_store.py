"""A name server's zone key at rest: sealed, the same after a restart, made anew when it is lost."""

from __future__ import annotations

import stat

import pytest

from services.authority.dnskeys.store import load_zone_key
from services.kernel.errors import SeipdError

SEED, OTHER_SEED = b"\1" * 32, b"\2" * 32
MESH = "ab" * 32


def load(path, seed: bytes = SEED):
    return load_zone_key(path, seed=seed, mesh_id=MESH)


def test_the_key_is_made_once_and_not_readable_by_others(tmp_path) -> None:
    path = tmp_path / "dns" / "zone_key.enc"
    key = load(path)
    assert load(path).seed == key.seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.seed not in path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "of another server"])
def test_one_that_does_not_open_is_made_anew(tmp_path, damage: str) -> None:
    path = tmp_path / "zone_key.enc"
    key = load(path, OTHER_SEED if damage == "of another server" else SEED)
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "flipped":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "empty":
        path.write_bytes(b"")
    again = load(path)
    assert again.seed != key.seed
    assert load(path).seed == again.seed


def test_sto_08_refuses_a_zone_key_that_others_can_read(tmp_path) -> None:
    path = tmp_path / "zone_key.enc"
    load(path)
    path.chmod(0o644)
    with pytest.raises(SeipdError, match="zone_key"):
        load(path)
