"""Which protocol version the root may bring into force, and whom it may leave behind."""

from __future__ import annotations

import pytest

from services.authority.rootkeys.activating import require_activatable
from services.kernel.errors import ConflictError


def refusal(version: int, *, in_force=1, known=2, told=None, force=False) -> str:
    try:
        require_activatable(version, in_force=in_force, known=known, told=told or {}, force=force)
    except ConflictError as error:
        return error.code
    return ""


def test_the_next_version_that_all_know_may_come() -> None:
    assert refusal(2, told={"server-a": 2, "server-b": 3}) == ""


@pytest.mark.parametrize("version", [1, 3, 0, -1])
@pytest.mark.parametrize("force", [True, False])
def test_no_other_than_the_next(version, force) -> None:
    assert refusal(version, known=9, force=force) == "bad_version"


@pytest.mark.parametrize("force", [True, False])
def test_never_one_that_the_roots_own_server_lacks(force) -> None:
    assert refusal(2, known=1, force=force) == "version_unknown"


@pytest.mark.parametrize("told", [{"server-a": 1}, {"server-a": None}, {"server-a": 2, "b": None}])
def test_a_server_that_lacks_it_is_left_behind_by_force_alone(told) -> None:
    assert refusal(2, told=told) == "version_lacking"
    assert refusal(2, told=told, force=True) == ""


def test_the_refusal_names_the_servers_but_not_a_thousand() -> None:
    told = {f"server-{n:04}": None for n in range(1000)}
    with pytest.raises(ConflictError, match=r"^1000 of the servers .*server-0004, …$") as caught:
        require_activatable(2, in_force=1, known=2, told=told, force=False)
    assert "upgrade them" in caught.value.mend
