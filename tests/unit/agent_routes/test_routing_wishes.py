"""What is said of routing is remembered, until something else is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.routes.wishes import (
    RoutingWishes,
    Said,
    load_wishes,
    prefixes_of,
    remember,
    with_said,
)
from seipd.agent.state import AgentState
from services.base.storage.files import make_private_dir
from services.kernel.errors import CorruptError, InputError


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / "seip"
    make_private_dir(folder)
    return AgentState(folder)


def test_what_was_said_stays_until_something_else_is_said(state) -> None:
    assert load_wishes(state) == RoutingWishes()
    remember(state, Said(advertise="192.168.8.0/24,192.168.7.0/24", exit_node="gate"))
    remember(state, Said(accepts=False))
    wished = load_wishes(state)
    assert wished.advertise == ["192.168.7.0/24", "192.168.8.0/24"]
    assert (wished.exit_node, wished.accepts, wished.mode) == ("gate", False, "mesh")
    remember(state, Said(advertise="none", exit_node="none", accepts=True, offers_exit=True))
    assert load_wishes(state) == RoutingWishes(offers_exit=True)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Said(advertise="192.168.7.1/24"), "bad_cidr"),
        (Said(advertise="192.168.7.0/24,"), "bad_cidr"),
        (Said(advertise="0.0.0.0/0"), "bad_cidr"),
        (Said(advertise=",".join(f"192.168.{n}.0/24" for n in range(33))), "bad_field"),
        (Said(exit_node="no name"), "bad_name"),
        (Said(exit_node="gate", mode="hub"), "needs_mesh"),
    ],
)
def test_what_can_t_be_wanted(state, said, code) -> None:
    with pytest.raises(InputError) as refused:
        remember(state, said)
    assert refused.value.code == code
    assert load_wishes(state) == RoutingWishes()


@pytest.mark.parametrize(
    "text",
    ["", "{}}", '{"advertise":["192.168.7.1/24"]}', '{"mode":"star"}', '{"exit_node":"a b"}'],
)
def test_a_damaged_file_is_no_wish_for_nothing(state, text) -> None:
    path = state.folder / "routing.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(CorruptError):
        load_wishes(state)


@given(st.text(alphabet="0123456789./,:abcdef none", max_size=40))
def test_any_text_is_prefixes_or_an_error(text) -> None:
    try:
        found = prefixes_of(text)
    except InputError:
        return
    assert prefixes_of(",".join(found)) == found
    assert with_said(RoutingWishes(), Said(advertise=text)).advertise == found
