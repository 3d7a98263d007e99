"""Which key may sign what: the rules, without a process or a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.signerd.core import (
    NEXT_STATES,
    KeyRow,
    KeyState,
    KeyTable,
    handle_of,
    parse_purposes,
    row_from_value,
)
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SeipdError,
)
from services.kernel.signing import MAX_SIGNED_BYTES, parse_key_id, parse_scope

DOMAIN = "domain:0190b3a0-0000-7000-8000-000000000001"
OTHER_DOMAIN = "domain:0190b3a0-0000-7000-8000-000000000002"
RECORD = "seipd/record/v1"
MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"


def row(**fields) -> KeyRow:
    given = {
        "scope": "platform",
        "key_id": "root-1",
        "state": KeyState.ACTIVE,
        "public_key": bytes(range(32)),
        "purposes": (RECORD,),
        "handle": "platform/root-1",
    }
    return KeyRow(**(given | fields))


def refusal(table: KeyTable, *, scope="platform", key_id="root-1", data=MESSAGE) -> str:
    with pytest.raises(SeipdError) as caught:
        table.may_sign(scope, key_id, data)
    return caught.value.code


def test_a_key_signs_what_begins_with_its_purpose() -> None:
    assert KeyTable((row(),)).may_sign("platform", "root-1", MESSAGE) == row()


def test_sgn_06_bytes_of_another_context_are_refused() -> None:
    table = KeyTable((row(),))
    for data in (
        b"seipd/checkpoint/v1\0" + bytes(32),
        b"seipd/record/v11\0" + bytes(32),
        b"seipd/record/v1",
        b"seipd/record/v1 \0",
        b" seipd/record/v1\0",
        b"\0seipd/record/v1\0",
        b"SEIPD/record/v1\0",
        b"seipd/mesh/12/34\n5\nAAAA\n",
        b"",
        bytes(32),  # a raw digest
        bytes(64),
    ):
        assert refusal(table, data=data) == "purpose_refused"


def test_sgn_06_each_key_has_its_own_purposes() -> None:
    rotate = row(key_id="root-2", purposes=("seipd/rotate/v1",))
    table = KeyTable((row(), rotate))
    assert refusal(table, key_id="root-2") == "purpose_refused"
    assert table.may_sign("platform", "root-2", b"seipd/rotate/v1\0x") is rotate


def test_a_message_over_the_limit_is_refused() -> None:
    table = KeyTable((row(),))
    fits = MESSAGE + bytes(MAX_SIGNED_BYTES - len(MESSAGE))
    assert table.may_sign("platform", "root-1", fits)
    assert refusal(table, data=fits + b"\0") == "purpose_refused"


def test_sgn_03_a_key_that_is_retired_or_rotating_signs_no_more() -> None:
    for state in (KeyState.RETIRED, KeyState.ROTATING):
        assert refusal(KeyTable((row(state=state),))) == "key_retired"


def test_sgn_03_an_unknown_key_is_unknown_in_every_scope() -> None:
    table = KeyTable((row(), row(scope=DOMAIN, key_id="own")))
    assert refusal(table, key_id="root-2") == "key_unknown"
    assert refusal(table, scope=DOMAIN) == "key_unknown"
    assert refusal(table, scope=OTHER_DOMAIN, key_id="own") == "key_unknown"
    assert refusal(table, scope="platform", key_id="own") == "key_unknown"


def test_sgn_03_a_key_of_another_algorithm_is_no_row() -> None:
    p256 = row().value() | {"public_key": "A" * 44}
    with pytest.raises(InputError):
        row_from_value(p256)


@pytest.mark.parametrize(
    "scope",
    [
        "",
        "Platform",
        "platform ",
        "platform\0",
        "platform:",
        "domain",
        "domain:",
        "domain:00000000-0000-0000-0000-000000000000",
        DOMAIN.upper(),
        DOMAIN.replace("-", ""),
        DOMAIN + "/x",
        f"domain:{{{DOMAIN.removeprefix('domain:')}}}",
        DOMAIN + "\n",
    ],
)
def test_a_scope_has_one_spelling(scope: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_scope(scope)
    assert caught.value.code == "wrong_scope"


@pytest.mark.parametrize("key_id", ["", "a" * 129, "a/b", "../x", "a b", "a\n", "ä", "a\0"])
def test_a_key_id_is_a_plain_name(key_id: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_key_id(key_id)
    assert caught.value.code == "bad_key_id"


def test_handles_of_two_keys_differ() -> None:
    names = [(s, k) for s in ("platform", DOMAIN, OTHER_DOMAIN) for k in ("a", "b", "platform")]
    assert len({handle_of(*name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "purposes",
    [[], [""], ["record"], ["seipd/record"], ["seipd/record/v0"], ["seipd/record/v1\0"],
     ["seipd/record/v1\n"], ["seipd//v1"], ["seipd/Record/v1"], ["seipd/a/v1"] * 17],
)  # fmt: skip
def test_a_purpose_that_would_separate_nothing_is_refused(purposes: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_purposes(purposes)
    assert caught.value.code == "bad_purpose"


def test_states_only_go_forward() -> None:
    for before in KeyState:
        for after in KeyState:
            table = KeyTable((row(state=before),))
            if after is before or after in NEXT_STATES[before]:
                assert table.with_state("platform", "root-1", after).rows[0].state is after
                continue
            with pytest.raises(ConflictError) as caught:
                table.with_state("platform", "root-1", after)
            assert caught.value.code == "bad_transition"
    assert not NEXT_STATES[KeyState.RETIRED]


def test_moving_one_key_leaves_the_others() -> None:
    other = row(key_id="root-2")
    table = KeyTable((row(), other)).with_state("platform", "root-1", KeyState.RETIRED)
    assert table.rows == (replace(row(), state=KeyState.RETIRED), other)
    with pytest.raises(NotFoundError):
        table.with_state("platform", "root-3", KeyState.RETIRED)


def test_a_name_is_given_once() -> None:
    with pytest.raises(InputError):
        KeyTable((row(),)).with_key(row(public_key=bytes(32)))


def test_a_row_survives_its_json() -> None:
    assert row_from_value(row(scope=DOMAIN).value()) == row(scope=DOMAIN)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "Active"},
        {"state": "superseded"},
        {"extra": 1},
        {"purposes": []},
        {"purposes": "seipd/record/v1"},
        {"scope": "everything"},
        {"key_id": ""},
        {"public_key": "AA"},
        {"handle": None},
    ],
)
def test_a_row_that_is_not_one_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        row_from_value(row().value() | change)


@given(
    data=st.binary(max_size=64) | st.binary(max_size=40).map(lambda tail: MESSAGE + tail),
    state=st.sampled_from(KeyState),
    key_id=st.sampled_from(["root-1", "root-2"]) | st.text(max_size=8),
    scope=st.sampled_from(["platform", DOMAIN]) | st.text(max_size=8),
)
def test_nothing_is_signed_but_by_the_rules(data, state, key_id, scope) -> None:
    table = KeyTable((row(state=state),))
    try:
        table.may_sign(scope, key_id, data)
    except (InputError, NotFoundError, ForbiddenError):
        return
    assert (scope, key_id, state) == ("platform", "root-1", KeyState.ACTIVE)
    assert data.split(b"\0")[0] == RECORD.encode()
    assert b"\0" in data
