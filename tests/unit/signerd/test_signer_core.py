"""Which key may sign what: the rules, without a process or a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.signerd.core import KeyTable, handle_of, table_from_value
from seipd.signerd.rows import (
    MAX_WINDOW_MS,
    NEXT_STATES,
    KeyRow,
    KeyState,
    Rotation,
    parse_purposes,
    row_from_value,
)
from services.kernel.dnsnames import name_of
from services.kernel.dnssec import DNSKEY, Validity, rrsig_head
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SeipdError,
)
from services.kernel.signing import DNSKEY_PURPOSE, MAX_SIGNED_BYTES, parse_key_id, parse_scope

DOMAIN = "domain:0190b3a0-0000-7000-8000-000000000001"
OTHER_DOMAIN = "domain:0190b3a0-0000-7000-8000-000000000002"
RECORD = "seipd/record/v1"
NOW = 1_800_000_000_000
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
        table.may_sign(scope, key_id, data, now_ms=NOW)
    return caught.value.code


def test_a_key_signs_what_begins_with_its_purpose() -> None:
    assert KeyTable((row(),)).may_sign("platform", "root-1", MESSAGE, now_ms=NOW) == row()


def test_the_key_of_a_zone_signs_dnskey_sets_and_nothing_else() -> None:
    table = KeyTable((row(purposes=(DNSKEY_PURPOSE,)),))
    apex = name_of("mesh.example")
    validity = Validity(inception_s=0, expiration_s=1)
    for rtype in range(300):
        head = rrsig_head(apex, rtype, 300, validity, tag=1, apex=apex)
        if rtype == DNSKEY:
            assert table.may_sign("platform", "root-1", head, now_ms=NOW)
        else:
            assert refusal(table, data=head) == "purpose_refused"
    assert refusal(table, data=MESSAGE) == "purpose_refused"
    assert refusal(table, data=DNSKEY_PURPOSE.encode() + b"\0") == "purpose_refused"
    head = rrsig_head(apex, DNSKEY, 300, validity, tag=1, apex=apex)
    assert refusal(KeyTable((row(),)), data=head) == "purpose_refused"


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
    assert table.may_sign("platform", "root-2", b"seipd/rotate/v1\0x", now_ms=NOW) is rotate


def test_a_message_over_the_limit_is_refused() -> None:
    table = KeyTable((row(),))
    fits = MESSAGE + bytes(MAX_SIGNED_BYTES - len(MESSAGE))
    assert table.may_sign("platform", "root-1", fits, now_ms=NOW)
    assert refusal(table, data=fits + b"\0") == "message_too_long"
    assert refusal(table, data=bytes(5 << 20)) == "message_too_long"


def test_sgn_03_a_key_that_is_retired_signs_no_more() -> None:
    assert refusal(KeyTable((row(state=KeyState.RETIRED),))) == "key_retired"
    assert refusal(KeyTable((row(valid_until_ms=NOW),))) == "key_retired"


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
            if after is before or after in NEXT_STATES[before]:
                assert row(state=before).moved(after, at_ms=NOW).state is after
                continue
            with pytest.raises(ConflictError) as caught:
                row(state=before).moved(after, at_ms=NOW)
            assert caught.value.code == "bad_transition"
    assert not NEXT_STATES[KeyState.RETIRED]


def test_retiring_one_key_leaves_the_others() -> None:
    other = row(key_id="root-2")
    table = KeyTable((row(), other)).retired("platform", "root-1", now_ms=NOW)
    assert table.rows == (replace(row(), state=KeyState.RETIRED, valid_until_ms=NOW), other)
    with pytest.raises(NotFoundError):
        table.retired("platform", "root-3", now_ms=NOW)


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
        table.may_sign(scope, key_id, data, now_ms=NOW)
    except (InputError, NotFoundError, ForbiddenError):
        return
    assert (scope, key_id) == ("platform", "root-1")
    assert state is not KeyState.RETIRED
    assert data.split(b"\0")[0] == RECORD.encode()
    assert b"\0" in data


HOUR = 3_600_000


def rotation(**fields) -> Rotation:
    given = {
        "scope": "platform",
        "old_key_id": "root-1",
        "new_key_id": "root-2",
        "opens_at_ms": NOW,
        "closes_at_ms": NOW + HOUR,
    }
    return Rotation(**(given | fields))


def rotated(**fields) -> KeyTable:
    return KeyTable((row(),)).with_rotation(rotation(**fields), bytes(32), now_ms=NOW)


def states_at(table: KeyTable, now_ms: int) -> list[str]:
    return [one.state.value for one in table.advanced(now_ms).rows]


def signs(table: KeyTable, now_ms: int) -> bool:
    try:
        return bool(table.may_sign("platform", "root-1", MESSAGE, now_ms=now_ms))
    except ForbiddenError:
        return False


def test_sgn_04_both_sign_in_the_window_and_the_old_one_not_a_moment_longer() -> None:
    table = rotated()
    for now_ms, old_signs in ((NOW, True), (NOW + HOUR - 1, True), (NOW + HOUR, False)):
        assert table.may_sign("platform", "root-2", MESSAGE, now_ms=now_ms)
        for seen in (table, table.advanced(now_ms)):
            assert signs(seen, now_ms) is old_signs


def test_sgn_04_one_key_is_active_at_any_time() -> None:
    table = rotated(opens_at_ms=NOW + HOUR, closes_at_ms=NOW + 2 * HOUR)
    assert states_at(table, NOW) == ["active", "active"]
    with pytest.raises(ForbiddenError) as caught:
        table.may_sign("platform", "root-2", MESSAGE, now_ms=NOW + HOUR - 1)
    assert caught.value.code == "rotation_in_progress"
    assert states_at(table, NOW + HOUR) == ["rotating", "active"]
    assert states_at(table, NOW + 2 * HOUR) == ["retired", "active"]
    assert states_at(table, NOW + 20 * HOUR) == ["retired", "active"]


def test_sgn_04_two_rotations_of_one_key_at_once_are_refused() -> None:
    table = rotated()
    for old, new in (("root-1", "root-3"), ("root-2", "root-3")):
        with pytest.raises(ConflictError) as caught:
            table.check_rotation(rotation(old_key_id=old, new_key_id=new), now_ms=NOW)
        assert caught.value.code == "rotation_in_progress"
    after = table.advanced(NOW + HOUR)
    late = rotation(
        old_key_id="root-2", new_key_id="root-3",
        opens_at_ms=NOW + HOUR, closes_at_ms=NOW + 2 * HOUR,
    )  # fmt: skip
    assert after.with_rotation(late, bytes(32), now_ms=NOW + HOUR).rows[2].key_id == "root-3"


def test_a_successor_has_the_purposes_of_its_key_and_a_name_of_its_own() -> None:
    table = rotated()
    assert table.rows[1].purposes == table.rows[0].purposes
    assert (table.rows[0].valid_until_ms, table.rows[1].valid_from_ms) == (NOW + HOUR, NOW)
    with pytest.raises(ConflictError) as caught:
        KeyTable((row(), row(key_id="root-2"))).check_rotation(rotation(), now_ms=NOW)
    assert caught.value.code == "key_exists"


@pytest.mark.parametrize(
    "fields",
    [
        {"closes_at_ms": NOW},
        {"closes_at_ms": NOW - 1},
        {"opens_at_ms": -1},
        {"closes_at_ms": NOW + MAX_WINDOW_MS + 1},
        {"new_key_id": "root-1"},
        {"new_key_id": "a/b"},
        {"scope": "everything"},
        {"closes_at_ms": 1 << 63},
    ],
)
def test_a_window_opens_strictly_before_it_closes(fields: dict) -> None:
    with pytest.raises(InputError):
        rotation(**fields)


def test_a_rotation_of_what_is_not_there_or_over_is_refused() -> None:
    table = KeyTable((row(), row(key_id="old", state=KeyState.RETIRED)))
    for fields, code in (
        ({"old_key_id": "root-9"}, "key_unknown"),
        ({"scope": DOMAIN}, "key_unknown"),
        ({"old_key_id": "old"}, "key_retired"),
        ({"opens_at_ms": NOW - 2, "closes_at_ms": NOW}, "bad_window"),
    ):
        with pytest.raises(SeipdError) as caught:
            table.check_rotation(rotation(**fields), now_ms=NOW)
        assert caught.value.code == code


def test_a_table_with_rotations_survives_its_json() -> None:
    table = rotated().advanced(NOW + 1)
    again = table_from_value(table.value())
    assert (again.rows, again.rotations) == (table.rows, table.rotations)


@pytest.mark.parametrize("change", [{"v": 2}, {"keys": {}}, {"rotations": [{}]}, {"more": 1}])
def test_a_table_that_is_not_one_is_refused(change: dict) -> None:
    with pytest.raises(InputError):
        table_from_value(rotated().value() | change)


def test_a_rotation_of_a_key_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(InputError):
        table_from_value(rotated().value() | {"keys": [row().value()]})


@given(times=st.lists(st.integers(NOW, NOW + 3 * HOUR), max_size=6), last=st.integers(0, 3 * HOUR))
def test_sgn_04_states_depend_on_the_time_alone_and_not_on_when_anybody_looked(times, last) -> None:
    table = rotated(opens_at_ms=NOW + HOUR, closes_at_ms=NOW + 2 * HOUR)
    direct = table.advanced(NOW + 3 * HOUR + last)
    for now_ms in sorted(times):
        table = table.advanced(now_ms)
        signing = [one for one in table.rows if one.valid_from_ms <= now_ms]
        assert sum(one.state is KeyState.ACTIVE for one in signing) == 1
    assert table.advanced(NOW + 3 * HOUR + last).rows == direct.rows
