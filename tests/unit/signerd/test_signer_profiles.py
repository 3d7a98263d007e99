"""What a signer may do where: every cell of the table."""

from __future__ import annotations

import pytest

from seipd.signerd.profiles import TABLE, Profile, Wanted, check_profile
from seipd.signerd.serving import Serving, check_serving
from services.kernel.errors import ConfigError

ALL, ONE = None, frozenset({"platform"})
PEER = "spiffe://mesh.example/server/a"

CELLS = [
    # saas, single, multi, what is asked for
    (False, True, True, Wanted(provider="software")),
    (True, True, True, Wanted(provider="pkcs11")),
    (True, True, True, Wanted(provider="kms")),
    (False, False, False, Wanted(provider="double")),
    (True, False, True, Wanted(provider="kms", listens=True, callers=[ONE])),
    (False, False, True, Wanted(provider="kms", listens=True, callers=[ONE, ALL])),
    (False, False, False, Wanted(provider="kms", listens=True)),
    (False, True, True, Wanted(provider="kms", group=True)),
    (False, True, False, Wanted(provider="kms", same_user=True)),
]


@pytest.mark.parametrize("cells", CELLS, ids=lambda cells: str(cells[3]))
def test_the_table(cells) -> None:
    *allowed, wanted = cells
    for profile, may in zip(Profile, allowed, strict=True):
        if may:
            check_profile(profile, wanted)
            continue
        with pytest.raises(ConfigError) as caught:
            check_profile(profile, wanted)
        assert caught.value.code == "not_in_profile"
        assert caught.value.mend


def test_every_profile_has_a_row() -> None:
    assert set(TABLE) == set(Profile)
    assert [one.value for one in Profile] == ["saas", "selfhosted-single", "selfhosted-multi"]


def serving(**fields) -> Serving:
    given = {
        "profile": "selfhosted-multi", "provider": "software", "group": False, "same_user": False,
        "listen": "127.0.0.1:0", "files": ("a", "b", "c"), "allowed": (PEER,),
    }  # fmt: skip
    return Serving(**(given | fields))


def test_a_start_is_held_against_its_profile_before_anything_is_opened() -> None:
    listening = check_serving(serving())
    assert listening is not None
    assert listening.allowed == {PEER: None}
    for fields in (
        {"profile": "selfhosted-single"},
        {"profile": "saas"},
        {"allowed": ()},
        {"files": ("a", "b", None)},
        {"allowed": ("mesh.example",)},
    ):
        with pytest.raises(ConfigError):
            check_serving(serving(**fields))
    assert check_serving(serving(listen=None, files=(None, None, None), allowed=())) is None
